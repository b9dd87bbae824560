//! Images made for a test.

use std::time::Duration;

use crate::{Artifact, Json, Server, json, until};

/// For a build to succeed or fail, on a machine without hardware virtualization that builds two at once.
pub const BUILD: Duration = Duration::from_secs(900);
/// Where the tests' applications serve their hooks.
pub const HOOKS_PORT: u16 = 9000;

/// Which hooks an image has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hooks {
    /// All six, with ample time.
    All,
    /// `ready` alone, which must succeed within these seconds.
    Ready(u32),
    /// `ready` with ample time, and `validate` within these seconds.
    ReadyAndValidate(u32),
    /// None.
    Disabled,
}

impl Hooks {
    /// The request's member.
    #[must_use]
    pub fn to_json(self) -> Json {
        const AMPLE: u32 = 300;
        match self {
            Self::All => json!({
                "port": HOOKS_PORT,
                "microvmHooks": {
                    "run": "ENABLED", "runTimeoutInSeconds": 30,
                    "resume": "ENABLED", "resumeTimeoutInSeconds": 30,
                    "suspend": "ENABLED", "suspendTimeoutInSeconds": 30,
                    "terminate": "ENABLED", "terminateTimeoutInSeconds": 30,
                },
                "microvmImageHooks": {
                    "ready": "ENABLED", "readyTimeoutInSeconds": AMPLE,
                    "validate": "ENABLED", "validateTimeoutInSeconds": AMPLE,
                },
            }),
            Self::Ready(seconds) => json!({
                "port": HOOKS_PORT,
                "microvmImageHooks": { "ready": "ENABLED", "readyTimeoutInSeconds": seconds },
            }),
            Self::ReadyAndValidate(seconds) => json!({
                "port": HOOKS_PORT,
                "microvmImageHooks": {
                    "ready": "ENABLED", "readyTimeoutInSeconds": AMPLE,
                    "validate": "ENABLED", "validateTimeoutInSeconds": seconds,
                },
            }),
            Self::Disabled => json!({}),
        }
    }
}

/// An image to be made.
#[derive(Debug, Clone)]
pub struct ImageRequest<'a> {
    /// Name.
    pub name: &'a str,
    /// The zip's S3 URI.
    pub uri: String,
    /// Hooks.
    pub hooks: Hooks,
    /// Environment.
    pub variables: Json,
    /// Its size class.
    pub memory_mib: u32,
    /// Whether its containers have every capability.
    pub all_capabilities: bool,
}

impl<'a> ImageRequest<'a> {
    /// From an artifact, which is uploaded; with every hook.
    ///
    /// # Panics
    /// Where the upload fails.
    pub fn of(server: &Server, name: &'a str, artifact: &Artifact) -> Self {
        let uri = server.upload(&format!("{name}.zip"), &artifact.zip());
        Self { name, uri, hooks: Hooks::All, variables: json!({}), memory_mib: 512, all_capabilities: false }
    }

    /// With other hooks.
    #[must_use]
    pub fn hooks(self, hooks: Hooks) -> Self {
        Self { hooks, ..self }
    }

    /// With environment variables.
    #[must_use]
    pub fn variables(self, variables: Json) -> Self {
        Self { variables, ..self }
    }

    /// Of another size class.
    #[must_use]
    pub fn memory_mib(self, memory_mib: u32) -> Self {
        Self { memory_mib, ..self }
    }

    /// With every capability.
    #[must_use]
    pub fn all_capabilities(self) -> Self {
        Self { all_capabilities: true, ..self }
    }

    /// Asks for it.
    ///
    /// # Panics
    /// Where it is refused.
    #[must_use]
    pub fn create(&self, server: &Server) -> Image {
        let mut arguments: Vec<String> =
            ["lambda-microvms", "create-microvm-image", "--name", self.name].map(str::to_owned).to_vec();
        arguments.extend(self.configuration(server));
        let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let created = server.aws(&words);
        assert_eq!(created["state"], "CREATING", "{created}");
        Image { arn: created["imageArn"].as_str().unwrap().to_owned() }
    }

    /// The arguments that create and update share.
    #[must_use]
    pub fn configuration(&self, server: &Server) -> Vec<String> {
        let capabilities = ("--additional-os-capabilities", json!(["ALL"]).to_string());
        [
            ("--base-image-arn", server.base_image()),
            ("--build-role-arn", server.build_role()),
            ("--code-artifact", json!({ "uri": self.uri }).to_string()),
            ("--hooks", self.hooks.to_json().to_string()),
            ("--environment-variables", self.variables.to_string()),
            ("--resources", json!([{ "minimumMemoryInMiB": self.memory_mib }]).to_string()),
        ]
        .into_iter()
        .chain(self.all_capabilities.then_some(capabilities))
        .flat_map(|(name, value)| [name.to_owned(), value])
        .collect()
    }
}

/// An image that was asked for.
#[derive(Debug, Clone)]
pub struct Image {
    /// ARN.
    pub arn: String,
}

impl Image {
    /// Its record.
    ///
    /// # Panics
    /// Where there is none.
    #[must_use]
    pub fn get(&self, server: &Server) -> Json {
        server.aws(&["lambda-microvms", "get-microvm-image", "--image-identifier", &self.arn])
    }

    /// Waits until nothing is under way; its record.
    ///
    /// # Panics
    /// Where that takes too long.
    #[must_use]
    pub fn settled(&self, server: &Server) -> Json {
        until(&format!("{} to settle", self.arn), BUILD, || (!self.is_busy(server)).then_some(()));
        self.get(server)
    }

    /// Whether something is under way. Asked without the AWS CLI, which would take the processor from a build.
    fn is_busy(&self, server: &Server) -> bool {
        let name = self.arn.rsplit(':').next().unwrap_or_default();
        let answer = server.api(&format!("/2025-09-09/microvm-images?nameFilter={name}"), &[]);
        let list = answer.unwrap_or_else(|error| panic!("{}: {error}", self.arn)).expect(200).json();
        let items = list["items"].as_array().cloned().unwrap_or_default();
        let image = items.iter().find(|item| item["imageArn"] == self.arn.as_str());
        image.and_then(|image| image["state"].as_str()).is_none_or(|state| state.ends_with("ING"))
    }

    /// Waits until it is built.
    ///
    /// # Panics
    /// Where the build fails, with its reason and the end of its log.
    #[must_use]
    pub fn built(self, server: &Server) -> Self {
        let image = self.settled(server);
        if image["state"] != "CREATED" {
            panic!("{}: {}", image["state"], self.build(server, "1.0"));
        }
        self
    }

    /// Waits until its build fails; the build.
    ///
    /// # Panics
    /// Where it does not.
    #[must_use]
    pub fn failed(&self, server: &Server) -> Json {
        let image = self.settled(server);
        assert_eq!(image["state"], "CREATE_FAILED", "{image}");
        assert_eq!(image["latestFailedImageVersion"], "1.0", "{image}");
        let build = self.build(server, "1.0");
        assert_eq!(build["buildState"], "FAILED", "{build}");
        build
    }

    /// The first build of a version.
    ///
    /// # Panics
    /// Where there is none.
    #[must_use]
    pub fn build(&self, server: &Server, version: &str) -> Json {
        let which = ["--image-identifier", &self.arn, "--image-version", version];
        let list = server.aws(&[&["lambda-microvms", "list-microvm-image-builds"][..], &which].concat());
        let id =
            list["items"][0]["buildId"].as_str().unwrap_or_else(|| panic!("no build: {list}")).to_owned();
        server.aws(&[&["lambda-microvms", "get-microvm-image-build", "--build-id", &id][..], &which].concat())
    }

    /// Makes another version of it and waits until that is built or has failed.
    ///
    /// # Panics
    /// Where it is refused, or takes too long.
    pub fn update(&self, request: &ImageRequest<'_>, server: &Server) {
        let mut arguments = ["lambda-microvms", "update-microvm-image", "--image-identifier", &self.arn]
            .map(str::to_owned)
            .to_vec();
        arguments.extend(request.configuration(server));
        server.aws(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        let _ = self.settled(server);
    }

    /// Deletes it and waits until it is gone.
    ///
    /// # Panics
    /// Where that takes too long.
    pub fn delete(&self, server: &Server) {
        let which = ["--image-identifier", &self.arn];
        let deleted = server.aws(&[&["lambda-microvms", "delete-microvm-image"][..], &which].concat());
        assert_eq!(deleted["state"], "DELETING", "{deleted}");
        until(&format!("{} to be gone", self.arn), Duration::from_secs(60), || {
            let all = server.aws(&["lambda-microvms", "list-microvm-images"]);
            let items = all["items"].as_array().cloned().unwrap_or_default();
            items.iter().all(|item| item["imageArn"] != self.arn.as_str()).then_some(())
        });
    }
}
