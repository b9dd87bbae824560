//! The lifecycle of an image and of a MicroVM, by the SDK for Rust.

use std::time::{Duration, Instant};

use aws_credential_types::Credentials;
use aws_sdk_lambdamicrovms::config::retry::RetryConfig;
use aws_sdk_lambdamicrovms::config::{BehaviorVersion, Region};
use aws_sdk_lambdamicrovms::types::{
    CodeArtifact, HookState, Hooks, MicrovmImageHooks, MicrovmImageState, MicrovmImageVersionState,
    MicrovmImageVersionStatus, MicrovmState, PortSpecification, Resources,
};
use aws_sdk_lambdamicrovms::{Client, Config};
use rekindle_e2e::command::Environment;
use rekindle_e2e::{http, image, microvm};

const FIRST: &str = "1.0";
const PAUSE: Duration = Duration::from_millis(100);

/// All of it, made of what stands in the environment.
pub(crate) fn lifecycle(environment: &Environment) {
    runtime().block_on(async {
        let user = User { client: client(environment), environment };
        let image = user.create().await;
        user.versions(&image).await;
        let (id, endpoint) = user.run(&image).await;
        user.request(&id, &endpoint).await;
        user.suspend(&id).await;
        user.resume(&id).await;
        user.request(&id, &endpoint).await;
        user.switch_off_and_on(&image).await;
        user.tag(&image).await;
        user.terminate(&id).await;
        user.fail_and_delete().await;
    });
}

/// Launches so many MicroVMs of an image in one moment; their ids, once all of them run.
pub(crate) fn launch_together(environment: &Environment, image: &str, count: usize) -> Vec<String> {
    runtime().block_on(async {
        let user = User { client: client(environment), environment };
        let launches = (0..count).map(|_| user.client.run_microvm().image_identifier(image).send());
        let launched = futures::future::try_join_all(launches).await.unwrap();
        let ids: Vec<String> = launched.iter().map(|answer| answer.microvm_id().to_owned()).collect();
        for id in &ids {
            user.reach(id, MicrovmState::Running).await;
        }
        ids
    })
}

/// Has a MicroVM sleep so often, and `ask` it something each time before; by turns it is resumed, and left to be woken by
/// that.
pub(crate) fn sleep_often(environment: &Environment, id: &str, times: u32, ask: impl Fn()) {
    let runtime = runtime();
    let user = User { client: client(environment), environment };
    for time in 0..times {
        ask();
        runtime.block_on(user.suspend(id));
        if time % 2 == 0 {
            runtime.block_on(user.resume(id));
        }
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn client(environment: &Environment) -> Client {
    let variable = |name: &str| environment[name].clone();
    let (key, secret) = (variable("AWS_ACCESS_KEY_ID"), variable("AWS_SECRET_ACCESS_KEY"));
    let config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(variable("AWS_REGION")))
        .endpoint_url(variable("AWS_ENDPOINT_URL"))
        .credentials_provider(Credentials::new(key, secret, None, None, "rekindle-e2e"))
        // A retry would hide a failure.
        .retry_config(RetryConfig::disabled())
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .build();
    Client::from_conf(config)
}

struct User<'a> {
    client: Client,
    environment: &'a Environment,
}

impl User<'_> {
    fn variable(&self, name: &str) -> &str {
        &self.environment[name]
    }

    async fn until(&self, what: &str, limit: Duration, look: impl AsyncFn() -> bool) {
        let began = Instant::now();
        while !look().await {
            assert!(began.elapsed() < limit, "{what}: not within {limit:?}");
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn image_state(&self, image: &str) -> MicrovmImageState {
        let answer = self.client.get_microvm_image().image_identifier(image).send().await.unwrap();
        answer.state().clone()
    }

    async fn reach(&self, id: &str, state: MicrovmState) {
        self.until(&format!("{id} to be {state}"), microvm::SETTLE, async || {
            let answer = self.client.get_microvm().microvm_identifier(id).send().await.unwrap();
            *answer.state() == state
        })
        .await;
    }

    async fn create(&self) -> String {
        let resources = Resources::builder().minimum_memory_in_mib(512).build().unwrap();
        let ready = MicrovmImageHooks::builder().ready(HookState::Enabled).ready_timeout_in_seconds(300);
        let hooks = Hooks::builder().port(9000).microvm_image_hooks(ready.build()).build();
        let answer = self
            .client
            .create_microvm_image()
            .name(self.variable("IMAGE_NAME"))
            .base_image_arn(self.variable("BASE_IMAGE"))
            .build_role_arn(self.variable("BUILD_ROLE"))
            .code_artifact(CodeArtifact::Uri(self.variable("ARTIFACT").into()))
            .resources(resources)
            .hooks(hooks)
            .tags("kept", "yes")
            .client_token(self.variable("CREATE_TOKEN"))
            .send()
            .await
            .unwrap();
        let image = answer.image_arn().to_owned();
        self.until("the build", image::BUILD, async || {
            self.image_state(&image).await != MicrovmImageState::Creating
        })
        .await;
        assert_eq!(self.image_state(&image).await, MicrovmImageState::Created);
        image
    }

    async fn versions(&self, image: &str) {
        let list = self.client.list_microvm_image_versions().image_identifier(image).send().await.unwrap();
        let numbers: Vec<&str> = list.items().iter().map(|item| item.image_version()).collect();
        assert_eq!(numbers, [FIRST]);
        let get = self.client.get_microvm_image_version().image_identifier(image).image_version(FIRST);
        let version = get.send().await.unwrap();
        assert_eq!(*version.state(), MicrovmImageVersionState::Successful);
        assert_eq!(*version.status(), MicrovmImageVersionStatus::Active);
        assert_eq!(self.reason(image).await, None);
    }

    /// Why the image's build failed, if it did.
    async fn reason(&self, image: &str) -> Option<String> {
        let list = self.client.list_microvm_image_builds().image_identifier(image).image_version(FIRST);
        let list = list.send().await.unwrap();
        let get = self.client.get_microvm_image_build().image_identifier(image).image_version(FIRST);
        let build = get.build_id(list.items()[0].build_id()).send().await.unwrap();
        build.state_reason().map(str::to_owned)
    }

    async fn run(&self, image: &str) -> (String, String) {
        let run = self.client.run_microvm().image_identifier(image).maximum_duration_in_seconds(600);
        let run = run.client_token("the SDK for Rust's");
        let (first, again) = (run.clone().send().await.unwrap(), run.send().await.unwrap());
        assert_eq!(first.microvm_id(), again.microvm_id());
        self.reach(first.microvm_id(), MicrovmState::Running).await;
        let pages = self.client.list_microvms().image_identifier(image).into_paginator().items().send();
        let items = pages.collect::<Result<Vec<_>, _>>().await.unwrap();
        assert!(items.iter().any(|item| item.microvm_id() == first.microvm_id()), "{items:?}");
        (first.microvm_id().to_owned(), first.endpoint().to_owned())
    }

    async fn request(&self, id: &str, endpoint: &str) {
        let token = self.client.create_microvm_auth_token().microvm_identifier(id).expiration_in_minutes(5);
        let token = token.allowed_ports(PortSpecification::Port(8080)).send().await.unwrap();
        let (name, value) = token.auth_token().iter().next().unwrap();
        let header = format!("{name}: {value}");
        let url = format!("https://{endpoint}/");
        http::curl(self.environment, &url, &["--header", &header]).unwrap().expect(200);
    }

    async fn suspend(&self, id: &str) {
        self.client.suspend_microvm().microvm_identifier(id).send().await.unwrap();
        self.reach(id, MicrovmState::Suspended).await;
    }

    async fn resume(&self, id: &str) {
        self.client.resume_microvm().microvm_identifier(id).send().await.unwrap();
        self.reach(id, MicrovmState::Running).await;
    }

    async fn switch_off_and_on(&self, image: &str) {
        let update = self.client.update_microvm_image_version().image_identifier(image).image_version(FIRST);
        update.clone().status(MicrovmImageVersionStatus::Inactive).send().await.unwrap();
        let refused = self.client.run_microvm().image_identifier(image).send().await.unwrap_err();
        assert!(refused.as_service_error().unwrap().is_resource_not_found_exception(), "{refused:?}");
        let version = update.status(MicrovmImageVersionStatus::Active).send().await.unwrap();
        assert_eq!(*version.status(), MicrovmImageVersionStatus::Active);
    }

    async fn tag(&self, image: &str) {
        self.client.tag_resource().resource(image).tags("client", "rust").send().await.unwrap();
        let tags = self.client.list_tags().resource(image).send().await.unwrap();
        let tags = tags.tags().unwrap();
        assert_eq!((tags.len(), tags["kept"].as_str(), tags["client"].as_str()), (2, "yes", "rust"));
        self.client.untag_resource().resource(image).tag_keys("client").send().await.unwrap();
        let image = self.client.get_microvm_image().image_identifier(image).send().await.unwrap();
        assert_eq!(image.tags().unwrap().len(), 1);
    }

    async fn terminate(&self, id: &str) {
        self.client.terminate_microvm().microvm_identifier(id).send().await.unwrap();
        self.reach(id, MicrovmState::Terminated).await;
    }

    async fn fail_and_delete(&self) {
        let create = self.client.create_microvm_image().name(self.variable("DOOMED_NAME"));
        let create = create.base_image_arn(self.variable("BASE_IMAGE"));
        let create = create.build_role_arn(self.variable("BUILD_ROLE"));
        let artifact = CodeArtifact::Uri("s3://artifacts/there-is-no-such-key.zip".into());
        let answer = create.code_artifact(artifact).send().await.unwrap();
        let image = answer.image_arn();
        self.until("the failure", microvm::SETTLE, async || {
            self.image_state(image).await == MicrovmImageState::CreateFailed
        })
        .await;
        let reason = self.reason(image).await.unwrap();
        assert!(reason.contains("there-is-no-such-key.zip"), "{reason}");
        self.client.delete_microvm_image().image_identifier(image).send().await.unwrap();
        self.until("the image to be gone", microvm::SETTLE, async || {
            match self.client.get_microvm_image().image_identifier(image).send().await {
                Ok(_) => false,
                Err(error) => error.as_service_error().unwrap().is_resource_not_found_exception(),
            }
        })
        .await;
    }
}
