//! The server and the image that the tests share.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LazyLock, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use rekindle_e2e::{Artifact, Image, ImageRequest, Server};

use crate::collector;

/// The settings of the server.
pub(crate) const SETTINGS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/networks.toml");

static STARTED: AtomicBool = AtomicBool::new(false);
static SERVER: LazyLock<RwLock<Server>> = LazyLock::new(|| {
    let exports = |_: &_| [(collector::ENDPOINT.to_owned(), collector::url())].into();
    let server = Server::start_under(&["--config", SETTINGS], exports);
    STARTED.store(true, Ordering::SeqCst);
    RwLock::new(server)
});

/// The server, shared with other tests.
pub(crate) fn shared() -> RwLockReadGuard<'static, Server> {
    SERVER.read().unwrap_or_else(PoisonError::into_inner)
}

/// The server alone, to be killed and started again. Whoever has it shared must not ask for it.
pub(crate) fn exclusive() -> RwLockWriteGuard<'static, Server> {
    let mut server = SERVER.write().unwrap_or_else(PoisonError::into_inner);
    server.revive_with(&["--config", SETTINGS]);
    server
}

/// The probe application's image, built by the first who asks.
pub(crate) fn probe(server: &Server) -> Image {
    static PROBE: OnceLock<Option<Image>> = OnceLock::new();
    let build = || {
        let request = ImageRequest::of(server, "probe", &Artifact::probe());
        let build = || request.create(server).built(server);
        // A build that failed would fail again, for every test that asks.
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(build)).ok()
    };
    PROBE
        .get_or_init(build)
        .clone()
        .expect("the probe's image could not be built; see the first test that needed it")
}

/// Prints the end of the server's log.
pub(crate) fn print_log() {
    if STARTED.load(Ordering::SeqCst) {
        eprintln!("the server's log ends:\n{}", shared().log());
    }
}

/// Stops the server, if it was started; panics where something of it is left.
pub(crate) fn stop() {
    if STARTED.load(Ordering::SeqCst) {
        exclusive().stop();
    }
}
