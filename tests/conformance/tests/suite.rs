//! The conformance suite: every operation of the service's model, by botocore, against the real control API.
//!
//! The tests are in `python/`; each is one trial here.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use libtest_mimic::{Arguments, Failed, Trial};
use rekindle_conformance::{Beds, Worker};

fn main() -> ExitCode {
    let beds = Beds::start();
    let worker = Arc::new(Mutex::new(Worker::start(&beds.settings)));
    let trial = |name: String| {
        let worker = Arc::clone(&worker);
        Trial::test(name.clone(), move || {
            let mut worker = worker.lock().unwrap_or_else(PoisonError::into_inner);
            worker.run(&name).map_err(Failed::from)
        })
    };
    let trials = Worker::names(&beds.settings).into_iter().map(trial).collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
