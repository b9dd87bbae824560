//! What a build takes: the first of an artifact, one of the same again, and one of a changed file below steps that stay.

use std::time::{Duration, Instant};

use e2e::{Artifact, Hooks, ImageRequest, Server};

use crate::stats::Samples;
use crate::table::{Row, Table};

/// Three builds each, which take four minutes where processors are emulated.
const ROUNDS: usize = 1;
/// How many times faster an unchanged Dockerfile is to be built.
const WANTED: u32 = 5;
/// A step that works for a while, as installing dependencies does, whatever the processor: byte-compiling the library.
const DOCKERFILE: &str = "FROM rekindle/python:3.13\n\
     RUN for n in 1 2 3 4; do python3 -c 'import compileall, sysconfig; \
     compileall.compile_dir(sysconfig.get_path(\"stdlib\"), quiet=2, force=True, maxlevels=1)' || true; done\n\
     COPY page /srv/page\n\
     CMD [\"python3\", \"-m\", \"http.server\", \"8080\", \"--directory\", \"/srv\"]\n";

/// The table, on a server that has nothing else to do.
pub(crate) fn measure(server: &Server) -> Table {
    let [mut first, mut same, mut changed] = [Samples::default(), Samples::default(), Samples::default()];
    for round in 0..ROUNDS {
        let name = format!("built-{round}");
        // A comment makes it another Dockerfile, of which nobody has left anything.
        let artifact = Artifact::new().file("Dockerfile", format!("{DOCKERFILE}# {round}\n"));
        let request = |page: &str| {
            let artifact = artifact.clone().file("page", page);
            ImageRequest::of(server, &name, &artifact).hooks(Hooks::Disabled)
        };
        let (one, two) = (request("one"), request("two"));
        let (took, image) = timed(|| one.create(server).built(server));
        first.push(took);
        same.push(timed(|| image.update(&one, server)).0);
        changed.push(timed(|| image.update(&two, server)).0);
        assert_eq!(image.get(server)["state"], "UPDATED", "{}", image.get(server));
        image.delete(server);
    }
    let limit = first.median().unwrap_or_default() / WANTED;
    let rows = vec![
        Row::of("first build of an artifact", &first),
        Row::of("  the same artifact again", &same).limit(limit),
        Row::of("  the same Dockerfile, a file changed", &changed).limit(limit),
    ];
    Table { name: "builds".into(), rows }
}

fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let began = Instant::now();
    let made = work();
    (began.elapsed(), made)
}
