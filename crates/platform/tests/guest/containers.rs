//! What a Dockerfile may say, and what a container is and is not allowed.

use crate::artifact::zip;
use crate::machines::Bench;

const ALIAS: (&str, &str) = ("public.ecr.aws/lambda/microvms:al2023-minimal", "localhost/rekindle/debian:13");
const DOCKERFILE: &str = r#"
ARG BASE=public.ecr.aws/lambda/microvms:al2023-minimal
FROM ${BASE} AS first
ARG WORD=argument
WORKDIR /made
RUN <<END
set -e
echo "$WORD" >word
id -u >uid
END
COPY . /copied/

FROM rekindle/debian:13
COPY --from=first /made /made
COPY --from=first /copied /copied
RUN useradd --uid 10001 --home-dir /home/web web
COPY check.sh /check.sh
ENV COLOUR=blue
WORKDIR /work/here
USER web
STOPSIGNAL SIGINT
ENTRYPOINT ["/bin/sh", "/check.sh"]
CMD ["one", "two words"]
"#;
/// Prints what it finds; what is refused must say so.
const CHECK: &str = r#"
echo "args=$1,$2 pwd=$(pwd) colour=$COLOUR region=$AWS_REGION home=$HOME host=$HOSTNAME path=$PATH"
echo "uid=$(id -u) pid=$$ word=$(cat /made/word) built-as=$(cat /made/uid) copied=$(ls -x /copied)"
grep -E '^(CapEff|CapBnd|NoNewPrivs)' /proc/self/status
exit 7
"#;
const CHECK_ROOT: &str = r#"
grep -E '^(CapEff|CapBnd|NoNewPrivs|NSpid)' /proc/self/status
echo x 2>/dev/null >/proc/sys/kernel/hostname && echo BAD proc-sys
for node in "vport b 10 0" "vda b 254 0" "vdb b 254 16" "mem c 1 1"; do
    set -- $node
    for dir in / /tmp /dev /dev/shm /data; do
        mknod $dir/n-$1 $2 $3 $4 && head -c 1 $dir/n-$1 >/dev/null 2>&1 && echo BAD opened $1 in $dir
        rm -f $dir/n-$1
    done
done
ls /dev | grep -E '^(vd|vport|hvc|mem|kmsg)' && echo BAD devices
[ -e /sys/class/virtio-ports ] && for port in /sys/class/virtio-ports/*/dev; do
    mknod /dev/port c $(tr : ' ' <$port) && head -c 1 /dev/port 2>/dev/null && echo BAD opened the port
    mknod /port c $(tr : ' ' <$port) && (: </port) 2>/dev/null && echo BAD opened the port
done
mount -t tmpfs tmpfs /mnt 2>/dev/null && echo BAD mount
hostname other 2>/dev/null && echo BAD hostname
unshare --user --map-root-user true 2>/dev/null && echo BAD user namespace
mkdir /sys/fs/cgroup/x 2>/dev/null && echo BAD cgroup
stat -c 'volume %a %u:%g' /data && grep -o '/data ext4' /proc/mounts && cat /kept/file
echo one >/dev/null && head -c 4 /dev/urandom | wc -c && echo two >/dev/stdout
echo checked
"#;
/// With every capability; but the host's port is the agent's alone, and there is no other way to the host.
const CHECK_ALL: &str = r#"
grep -E '^(CapEff|Seccomp)' /proc/self/status
ls -l /dev/fuse
mount -t tmpfs none /mnt && echo mounted
mkdir /data/upper /data/work && mount -t overlay -o lowerdir=/etc,upperdir=/data/upper,workdir=/data/work none /srv \
    && echo made >/srv/made && cat /data/upper/made
cd /sys/fs/cgroup && mkdir init x && echo 0 >init/cgroup.procs && echo +memory +pids >cgroup.subtree_control \
    && echo 1000000 >x/memory.max && echo divided
[ -r /sys/firmware/acpi ] && head -c 1 /proc/keys >/dev/null && echo unmasked
echo other >/proc/sys/kernel/hostname && hostname
for port in /sys/class/virtio-ports/*/dev; do
    mknod /dev/port c $(tr : ' ' <$port) && (: <>/dev/port) 2>/dev/null && echo BAD opened the port
done
[ -e /dev/port ] && echo tried the port
perl -e 'for (qw(40 38)) { socket(my $s, $_, 1, 0) or print "family $_: $!\n"; }'
"#;
const ROOT_DOCKERFILE: &str = r#"
FROM rekindle/debian:13
COPY check.sh /
RUN install -d -m 1770 -o 5 -g 6 /data && mkdir /kept && echo "kept of the image" >/kept/file
VOLUME /data /kept
CMD ["sh", "/check.sh"]
"#;

pub(crate) async fn are_confined(bench: &Bench) {
    let files: [(&str, &[u8]); 5] = [
        ("Dockerfile", DOCKERFILE.as_bytes()),
        ("check.sh", CHECK.as_bytes()),
        (".dockerignore", b"secret\nDockerfile\n.dockerignore\n"),
        ("secret", b"no"),
        ("kept", b"yes"),
    ];
    let image = bench.build("full-build", &zip(&files), &[ALIAS]).await.unwrap();
    assert_eq!(image.config.stop_signal, "SIGINT");
    let mut guest = bench.start("full", &image, false).await;
    assert_eq!(guest.exit().await, 7);
    let log = guest.log();
    println!("{log}");
    for want in [
        "args=one,two words pwd=/work/here colour=blue region=eu-test-1 home=/home/web host=localhost",
        "uid=10001 pid=1 word=argument built-as=0 copied=check.sh  kept\n",
        "CapEff:\t0000000000000000",
        "CapBnd:\t00000000a80425fb",
        "NoNewPrivs:\t1",
    ] {
        assert!(log.contains(want), "{want}");
    }
    guest.power_off().await;

    let files = [("Dockerfile", ROOT_DOCKERFILE.as_bytes()), ("check.sh", CHECK_ROOT.as_bytes())];
    let mut image = bench.build("root-build", &zip(&files), &[]).await.unwrap();
    let mut guest = bench.start("root", &image, false).await;
    assert_eq!(guest.exit().await, 0);
    let log = guest.log();
    println!("{log}");
    for want in [
        "CapEff:\t00000000a80425fb",
        "CapBnd:\t00000000a80425fb",
        "NoNewPrivs:\t1",
        "volume 1770 5:6\n/data ext4\nkept of the image\n",
        "4\ntwo\nchecked\n",
    ] {
        assert!(log.contains(want), "{want}");
    }
    assert!(!log.contains("BAD"));
    guest.power_off().await;

    image.config.cmd = ["sh", "-c", CHECK_ALL].map(String::from).to_vec();
    let mut guest = bench.start("all", &image, true).await;
    assert_eq!(guest.exit().await, 0, "{}", guest.log());
    let log = guest.log();
    println!("{log}");
    for want in [
        "CapEff:\t000001ffffffffff",
        "Seccomp:\t0",
        "crw-rw-rw-",
        "mounted\n",
        "made\n",
        "divided\n",
        "other\n",
        "tried the port\n",
        "family 40: Address family not supported",
    ] {
        assert!(log.contains(want), "{want}");
    }
    assert!(!log.contains("BAD"));
    guest.power_off().await;

    image.config.cmd = vec!["/nowhere/server".into()];
    let mut guest = bench.start("missing", &image, false).await;
    assert_eq!(guest.exit().await, 127);
    let log = guest.log();
    assert!(log.starts_with("Failed to start container: ") && log.contains("/nowhere/server"), "{log}");
    guest.power_off().await;
}
