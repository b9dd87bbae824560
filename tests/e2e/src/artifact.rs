//! Code artifacts: the zip that an image is made from.

use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use crate::command;

/// Files to be zipped.
#[derive(Debug, Clone, Default)]
pub struct Artifact(Vec<(String, Vec<u8>)>);

impl Artifact {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The files of a folder of the workspace, such as `examples/hello`.
    ///
    /// # Panics
    /// Where it cannot be read.
    #[must_use]
    pub fn of(folder: &str) -> Self {
        Self::new().folder(folder)
    }

    /// With the files of another folder.
    ///
    /// # Panics
    /// Where it cannot be read.
    #[must_use]
    pub fn folder(self, folder: &str) -> Self {
        let root = command::workspace().join(folder);
        files_below(&root).into_iter().fold(self, |artifact, path| {
            let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
            artifact.file(&name, std::fs::read(&path).unwrap())
        })
    }

    /// The tests' own application.
    #[must_use]
    pub fn probe() -> Self {
        Self::of("examples/hello").folder("tests/apps/probe")
    }

    /// `tests/apps/boto`, with the boto3 that `scripts/clients` installs and what it knows of S3 and STS.
    ///
    /// # Panics
    /// Where it cannot be read.
    #[must_use]
    pub fn boto() -> Self {
        const PACKAGES: [&str; 6] = ["boto3", "botocore", "s3transfer", "jmespath", "dateutil", "urllib3"];
        const PURELIB: &str = "import sysconfig; print(sysconfig.get_path('purelib'), end='')";
        let python = command::clients().join("bin/python");
        let installed = PathBuf::from(command::must(Command::new(python).args(["-c", PURELIB])));
        let files = PACKAGES.iter().flat_map(|package| files_below(&installed.join(package)));
        files.chain([installed.join("six.py")]).fold(Self::of("tests/apps/boto"), |artifact, path| {
            let name = path.strip_prefix(&installed).unwrap().to_str().unwrap();
            if is_wanted_of_boto(name) {
                artifact.file(name, std::fs::read(&path).unwrap())
            } else {
                artifact
            }
        })
    }

    /// `examples/native`, compiled; or as `REKINDLE_NATIVE` names it, where there is no compiler.
    ///
    /// # Panics
    /// Where the compiler fails.
    #[must_use]
    pub fn native() -> Self {
        const TARGET: &str = "x86_64-unknown-linux-gnu";
        if let Some(program) = std::env::var_os("REKINDLE_NATIVE") {
            return Self::of("examples/native").file("server", std::fs::read(program).unwrap());
        }
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("server");
        let mut rustc = Command::new("rustc");
        rustc.args(["--edition", "2024", "-O", "-C", "target-feature=+crt-static", "--target", TARGET, "-o"]);
        command::must(rustc.arg(&program).arg(command::workspace().join("examples/native/server.rs")));
        Self::of("examples/native").file("server", std::fs::read(&program).unwrap())
    }

    /// With a file, in place of one of the same name.
    #[must_use]
    pub fn file(mut self, name: &str, content: impl Into<Vec<u8>>) -> Self {
        self.0.retain(|(other, _)| other != name);
        self.0.push((name.to_owned(), content.into()));
        self
    }

    /// The zip.
    #[must_use]
    pub fn zip(&self) -> Vec<u8> {
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, content) in &self.0 {
            zip.start_file(name, SimpleFileOptions::default().unix_permissions(0o755)).unwrap();
            zip.write_all(content).unwrap();
        }
        zip.finish().unwrap().into_inner()
    }
}

/// Sources, and the models of two services out of some four hundred.
fn is_wanted_of_boto(name: &str) -> bool {
    let of_others = name.split_once("/data/").and_then(|(_, data)| data.split_once('/'));
    !name.ends_with(".pyc") && of_others.is_none_or(|(service, _)| matches!(service, "s3" | "sts"))
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] })
        .collect();
    paths.sort();
    paths
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn of_boto3_two_services_are_wanted() {
        let wanted = [
            "six.py",
            "botocore/client.py",
            "botocore/data/_retry.json",
            "botocore/data/s3/v/service-2.json.gz",
        ];
        assert!(wanted.into_iter().all(is_wanted_of_boto));
        assert!(!is_wanted_of_boto("botocore/data/ec2/v/service-2.json.gz"));
        assert!(!is_wanted_of_boto("boto3/__pycache__/session.cpython-311.pyc"));
    }

    #[test]
    fn a_folder_is_zipped_with_what_replaces_its_files() {
        let zipped = Artifact::of("examples/hello").file("Dockerfile", "FROM scratch\n").zip();
        let mut archive = zip::ZipArchive::new(Cursor::new(zipped)).unwrap();
        let mut dockerfile = String::new();
        archive.by_name("Dockerfile").unwrap().read_to_string(&mut dockerfile).unwrap();
        assert_eq!(dockerfile, "FROM scratch\n");
        assert!(archive.by_name("app.py").is_ok());
    }
}
