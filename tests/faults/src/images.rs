//! An image that is built while a fault befalls the server, as its client knows it.

use std::time::{Duration, Instant};

use e2e::image::BUILD;
use e2e::{Artifact, Image, Json, Server, json};

use crate::bed::Bed;
use crate::guests::{Harm, Known, call, patiently};

const IMAGES: &str = "/2025-09-09/microvm-images";
/// Of a new image.
const VERSION: &str = "1.0";
/// Between two looks at a build, each of which takes the AWS CLI as long.
const LOOK: Duration = Duration::from_millis(500);

#[derive(Debug, Clone)]
pub(crate) struct Built {
    /// The request, with a client token: asked for again, it is made once.
    request: String,
    /// What was acknowledged.
    arn: Option<String>,
}

impl Built {
    /// One to be asked for: the smallest there is, because a build takes as long as ten other runs.
    pub(crate) fn planned(bed: &Bed, name: &str) -> Self {
        let server = &bed.server;
        let uri = server.upload(&format!("{name}.zip"), &Artifact::native().zip());
        let request = json!({
            "name": name,
            "clientToken": name,
            "baseImageArn": server.base_image(),
            "buildRoleArn": server.build_role(),
            "codeArtifact": { "uri": uri },
            "resources": [{ "minimumMemoryInMiB": 512 }],
        });
        Self { request: request.to_string(), arn: None }
    }

    /// Asks for it, unless it was acknowledged; an answer may not come.
    pub(crate) fn ask(&mut self, server: &Server) {
        if self.arn.is_none()
            && let Ok(answer) = call(server, "POST", IMAGES, &self.request)
            && answer.status < 300
        {
            self.arn = answer.json()["imageArn"].as_str().map(str::to_owned);
        }
    }

    /// Waits until it is built or has failed, or the server is gone.
    pub(crate) fn watch(&self, server: &Server) {
        let began = Instant::now();
        while began.elapsed() < BUILD && self.get(server).is_ok_and(|image| is_busy(&image)) {
            std::thread::sleep(LOOK);
        }
    }

    /// What must be true after the fault: a build that the server or the machine died in was begun anew and came to its
    /// end; one that a step failed in may have failed, with a reason. What is there can be launched from.
    pub(crate) fn check(&mut self, bed: &Bed, harm: Harm) -> Result<(), String> {
        let server = &bed.server;
        // The server may still hold what it measured when the fault had filled its disk.
        let _acknowledged = patiently(|| {
            self.ask(server);
            self.arn.clone()
        });
        self.watch(server);
        let image = self.get(server)?;
        let build = self.build(server)?;
        let reason = build["stateReason"].as_str().unwrap_or_default();
        let states = [&image["state"], &build["buildState"]].map(|state| state.as_str().unwrap_or_default());
        match states {
            ["CREATED", "SUCCESSFUL"] => {
                let arn = self.arn()?;
                let name = arn.rsplit(':').next().unwrap_or_default();
                let mut guest = Known::ask_of(server, arn, name).ok_or("a launch from it is refused")?;
                guest.settle(server, &["RUNNING"])?;
                guest.greets(server)?;
                guest.end(server)
            }
            ["CREATE_FAILED", "FAILED"] if matches!(harm, Harm::Failed | Harm::VmmKilled) => {
                if reason.is_empty() { Err(format!("it failed without a reason: {build}")) } else { Ok(()) }
            }
            _ => Err(format!("after {harm:?} its build came to {states:?}: {reason}")),
        }
    }

    /// Removes it, and waits until it is gone.
    pub(crate) fn end(&self, server: &Server) -> Result<(), String> {
        Image { arn: self.arn()?.to_owned() }.delete(server);
        Ok(())
    }

    fn arn(&self) -> Result<&str, String> {
        self.arn.as_deref().ok_or_else(|| "CreateMicrovmImage is refused after the fault".to_owned())
    }

    fn get(&self, server: &Server) -> Result<Json, String> {
        server.try_aws(&["lambda-microvms", "get-microvm-image", "--image-identifier", self.arn()?])
    }

    fn build(&self, server: &Server) -> Result<Json, String> {
        let version = ["--image-identifier", self.arn()?, "--image-version", VERSION];
        let ask = |words: &[&str]| server.try_aws(&[&["lambda-microvms"], words, &version].concat());
        let builds = ask(&["list-microvm-image-builds"])?;
        match builds["items"].as_array().map_or(&[][..], Vec::as_slice) {
            [build] => {
                let id = build["buildId"].as_str().unwrap_or_default();
                ask(&["get-microvm-image-build", "--build-id", id])
            }
            _ => Err(format!("it has not one build: {builds}")),
        }
    }
}

fn is_busy(image: &Json) -> bool {
    image["state"].as_str().is_none_or(|state| state.ends_with("ING"))
}
