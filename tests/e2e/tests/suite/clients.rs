//! The lifecycle of an image and of a MicroVM through each client that a program may have: the AWS CLI, boto3, the
//! SDK for JavaScript and the SDK for Rust.
//!
//! All four make the same image with the same client token, so that the first builds it and the others are given
//! what it built. They take turns, as each switches the image's version off and on again.

use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, OnceLock, PoisonError};

use rekindle_e2e::command::{self, Environment};
use rekindle_e2e::{Artifact, Server};

use crate::fixture;
use crate::rust_sdk;

const NAME: &str = "clients";
const CREATE_TOKEN: &str = "every client's";

pub(crate) fn the_aws_cli() {
    in_turn("cli", |environment| program("bash".into(), "lifecycle.sh", environment));
}

pub(crate) fn boto3() {
    let python = command::clients().join("bin/python");
    in_turn("boto3", |environment| program(python, "lifecycle.py", environment));
}

pub(crate) fn the_sdk_for_javascript() {
    let node = command::clients().join("bin/node");
    in_turn("node", |environment| program(node, "lifecycle.mjs", environment));
}

pub(crate) fn the_sdk_for_rust() {
    in_turn("rust", rust_sdk::lifecycle);
}

fn program(interpreter: PathBuf, script: &str, environment: &Environment) {
    let script = command::workspace().join("tests/e2e/clients").join(script);
    command::must(Command::new(interpreter).arg(script).env_remove("AWS_PROFILE").envs(environment));
}

/// Runs a client with what it needs to know.
fn in_turn(client: &str, run: impl FnOnce(&Environment)) {
    static TURN: Mutex<()> = Mutex::new(());
    let server = fixture::shared();
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    run(&environment(&server, client));
}

fn environment(server: &Server, client: &str) -> Environment {
    static ARTIFACT: OnceLock<String> = OnceLock::new();
    let artifact =
        ARTIFACT.get_or_init(|| server.upload("clients.zip", &Artifact::of("examples/hello").zip()));
    let mut environment = server.client_environment();
    for (name, value) in [
        ("CLIENTS", command::clients().to_str().unwrap()),
        ("IMAGE_NAME", NAME),
        ("CREATE_TOKEN", CREATE_TOKEN),
        ("DOOMED_NAME", &format!("doomed-{client}")),
        ("ARTIFACT", artifact),
        ("BASE_IMAGE", &server.base_image()),
        ("BUILD_ROLE", &server.build_role()),
    ] {
        environment.insert(name.into(), value.into());
    }
    environment
}
