"""What a process of the container gets when it asks for what it should not have: each by its own system call, in a process
of its own, and 32-bit ones too. Run by itself; prints JSON."""

import ctypes
import errno
import json
import mmap
import os
import resource

LIBC = ctypes.CDLL(None, use_errno=True)
NEW_USER = 0x10000000
SIGCHLD = 17
# push rbx; mov eax, edi; xor ebx, ebx; xor ecx, ecx; xor edx, edx; int 0x80; pop rbx; ret
CALL_32 = b"\x53\x89\xf8\x31\xdb\x31\xc9\x31\xd2\xcd\x80\x5b\xc3"

CALLS = {
    "add_key": (248, b"user", b"a", b"b", 1, -4),
    "bpf": (321, 0, 0, 0),
    "chroot": (161, b"/"),
    "clone_new_user": (56, NEW_USER | SIGCHLD, 0, 0, 0, 0),
    "clone3": (435, 0, 0),
    "get_mempolicy": (239, 0, 0, 0, 0, 0),
    "init_module": (175, 0, 0, b""),
    "io_uring_setup": (425, 1, 0),
    "keyctl": (250, 0, -3, 0),
    "kexec_load": (246, 0, 0, 0, 0),
    "mount": (165, b"none", b"/tmp", b"tmpfs", 0, 0),
    "open_by_handle_at": (304, -1, 0, 0),
    "perf_event_open": (298, 0, 0, -1, -1, 0),
    "personality_no_randomisation": (135, 0x40000),
    "personality_query": (135, 0xFFFFFFFF),
    "pivot_root": (155, b"/", b"/"),
    "ptrace_traceme": (101, 0, 0, 0, 0),
    "reboot": (169, 0, 0, 0, 0),
    "setns": (308, -1, 0),
    "settimeofday": (164, 0, 0),
    "socket_alg": (41, 38, 5, 0),
    "socket_vsock": (41, 40, 1, 0),
    "socket_packet": (41, 17, 3, 0),
    "swapon": (167, b"/none", 0),
    "syslog": (103, 3, 0, 0),
    "umount": (166, b"/tmp", 0),
    "unshare_new_user": (272, NEW_USER),
    "userfaultfd": (323, 0),
    "unheard_of": (2000,),
    "x32_getpid": (0x40000000 + 39,),
}
CALLS_32 = {"getpid_32": 20, "mount_32": 21, "setns_32": 346, "clone3_32": 435, "keyctl_32": 288}
FILES = ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/interrupts", "/proc/sched_debug"]
FOLDERS = ["/proc/acpi", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap"]
WRITTEN = ["/proc/sys/kernel/hostname", "/proc/sysrq-trigger", "/proc/irq/default_smp_affinity", "/sys/kernel/uevent_helper"]
MOUNTS = ["/dev", "/dev/shm", "/dev/mqueue", "/dev/pts", "/sys", "/sys/fs/cgroup"]


def call_32(number: int) -> int:
    code = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(CALL_32)
    address = ctypes.addressof(ctypes.c_char.from_buffer(code))
    return ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)(address)(number)


def call(number: int, *arguments) -> int:
    result = LIBC.syscall(number, *(ctypes.c_long(a) if isinstance(a, int) else a for a in arguments))
    return result if result >= 0 else -ctypes.get_errno()


def attempt(function, *arguments) -> str:
    """What comes of it in a process that is gone afterwards."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        result = function(*arguments)
        os.write(writer, (errno.errorcode.get(-result, str(result)) if result < 0 else "ok").encode())
        os._exit(0)
    os.close(writer)
    said = os.read(reader, 100).decode()
    os.close(reader)
    status = os.waitpid(child, 0)[1]
    return said or f"status {status}"


def content(path: str) -> str:
    try:
        if os.path.isdir(path):
            return f"{len(os.listdir(path))} entries"
        with open(path, "rb") as file:
            return f"{len(file.read(100))} bytes"
    except OSError as error:
        return errno.errorcode[error.errno]


def opened_for_writing(path: str) -> str:
    try:
        os.close(os.open(path, os.O_WRONLY))
        return "ok"
    except OSError as error:
        return errno.errorcode[error.errno]


def options(point: str) -> str:
    """Of the last mount there: kind, and its options sorted."""
    found = "none"
    with open("/proc/self/mounts", encoding="utf-8") as mounts:
        for line in mounts:
            _, at, kind, words, *_ = line.split()
            if at == point:
                found = " ".join([kind, *sorted(words.split(","))])
    return found


def limits() -> dict:
    names = {"nofile": resource.RLIMIT_NOFILE, "nproc": resource.RLIMIT_NPROC, "core": resource.RLIMIT_CORE}
    return {name: resource.getrlimit(limit) for name, limit in names.items()}


def main() -> None:
    found = {
        "calls": {name: attempt(call, *arguments) for name, arguments in CALLS.items()}
        | {name: attempt(call_32, number) for name, number in CALLS_32.items()},
        "masked": {path: content(path) for path in FILES + FOLDERS if os.path.exists(path)},
        "written": {path: opened_for_writing(path) for path in WRITTEN if os.path.exists(path)},
        "devices": sorted(os.listdir("/dev")),
        "mounts": {point: options(point) for point in MOUNTS},
        "limits": limits(),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
