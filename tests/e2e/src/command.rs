//! Running programs, and failing with their words.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// Where the assets are unless `REKINDLE_ASSETS` says otherwise.
const DEFAULT_ASSETS: &str = "/var/lib/rekindle/assets";

/// Variables for a program.
pub type Environment = BTreeMap<String, String>;

/// The workspace's root.
#[must_use]
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// The server's program: `REKINDLE_BIN`, or what `make build` made.
#[must_use]
pub fn rekindle() -> PathBuf {
    let built = || workspace().join("target/release/rekindle");
    let program = std::env::var_os("REKINDLE_BIN").map_or_else(built, PathBuf::from);
    assert!(program.exists(), "there is no {}: run `make build` first", program.display());
    program
}

/// The guest agent: `REKINDLE_AGENT`, or what `make build` made.
#[must_use]
pub fn agent() -> PathBuf {
    let built = || workspace().join("target/x86_64-unknown-linux-gnu/agent/rekindle-agent");
    std::env::var_os("REKINDLE_AGENT").map_or_else(built, PathBuf::from)
}

/// Where the clients are that `scripts/clients` installs; installed by the first call.
pub fn clients() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let assets = std::env::var_os("REKINDLE_ASSETS").unwrap_or_else(|| DEFAULT_ASSETS.into());
        let script = workspace().join("scripts/clients");
        must(Command::new(script).env("REKINDLE_ASSETS", &assets));
        Path::new(&assets).join("clients")
    })
}

/// The AWS CLI with these variables, to print JSON.
#[must_use]
pub fn aws(environment: &Environment, arguments: &[&str]) -> Command {
    let mut command = Command::new(clients().join("bin/aws"));
    command.args(arguments).args(["--output", "json"]).env_remove("AWS_PROFILE").envs(environment);
    command
}

/// What a program did.
///
/// # Panics
/// Where it cannot be run.
pub fn run(command: &mut Command) -> Output {
    match command.output() {
        Ok(output) => output,
        Err(error) => panic!("cannot run {command:?}: {error}"),
    }
}

/// The standard output of a program that must succeed.
///
/// # Panics
/// Where it does not, with its standard error.
pub fn must(command: &mut Command) -> String {
    let output = run(command);
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{out}{err}", output.status);
    out
}

/// Bytes as text, whatever they are.
#[must_use]
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Reads `export NAME=value` lines, the value perhaps in single quotes.
#[must_use]
pub fn parse_exports(lines: &str) -> Environment {
    let export = |line: &str| {
        let (name, value) = line.trim().strip_prefix("export ")?.split_once('=')?;
        Some((name.to_owned(), unquote(value)))
    };
    lines.lines().filter_map(export).collect()
}

fn unquote(value: &str) -> String {
    let inner = value.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\''));
    inner.map_or_else(|| value.to_owned(), |inner| inner.replace(r"'\''", "'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exports_are_read_with_and_without_quotes() {
        let read = parse_exports("export A=http://x:1\n# no\nexport B='a b'\\''c'\nexport C=\n");
        let expected = [("A", "http://x:1"), ("B", "a b'c"), ("C", "")];
        assert_eq!(read, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    }

    #[test]
    #[should_panic(expected = "something to say")]
    fn a_failed_program_is_quoted() {
        must(Command::new("sh").args(["-c", "echo something to say >&2; exit 3"]));
    }
}
