//! The AWS API as the official SDK speaks it.

use std::time::{Duration, Instant};

use aws_credential_types::Credentials;
use aws_sdk_lambdamicrovms::config::retry::RetryConfig;
use aws_sdk_lambdamicrovms::config::{BehaviorVersion, Region};
use aws_sdk_lambdamicrovms::types::{IdlePolicy, MicrovmState, PortSpecification};
use aws_sdk_lambdamicrovms::{Client, Config};
use e2e::Server;
use e2e::microvm::SETTLE;

use crate::Failure;

/// Between two looks at a MicroVM's state: the most by which a figure is too large.
const POLL: Duration = Duration::from_millis(2);
const TOKEN_MINUTES: i32 = 60;
/// Never reached: what is measured is asked for.
const IDLE_SECONDS: i32 = 3600;

/// A client of a server.
#[derive(Debug, Clone)]
pub(crate) struct Api(Client);

/// A MicroVM that was asked for.
#[derive(Debug, Clone)]
pub(crate) struct Launched {
    pub(crate) id: String,
    pub(crate) endpoint: String,
}

impl Api {
    pub(crate) fn new(server: &Server) -> Self {
        let variable = |name: &str| server.variable(name).to_owned();
        let (key, secret) = (variable("AWS_ACCESS_KEY_ID"), variable("AWS_SECRET_ACCESS_KEY"));
        let config = Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(variable("AWS_REGION")))
            .endpoint_url(variable("AWS_ENDPOINT_URL"))
            .credentials_provider(Credentials::new(key, secret, None, None, "rekindle-bench"))
            // A retry would hide a failure in a figure.
            .retry_config(RetryConfig::disabled())
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .build();
        Self(Client::from_conf(config))
    }

    pub(crate) async fn run(&self, image: &str) -> Result<Launched, Failure> {
        let idle = IdlePolicy::builder()
            .max_idle_duration_seconds(IDLE_SECONDS)
            .suspended_duration_seconds(IDLE_SECONDS)
            .auto_resume_enabled(true)
            .build()?;
        let answer = self.0.run_microvm().image_identifier(image).idle_policy(idle).send().await?;
        Ok(Launched { id: answer.microvm_id().to_owned(), endpoint: answer.endpoint().to_owned() })
    }

    pub(crate) async fn token(&self, id: &str) -> Result<String, Failure> {
        let request = self.0.create_microvm_auth_token().microvm_identifier(id);
        let request =
            request.expiration_in_minutes(TOKEN_MINUTES).allowed_ports(PortSpecification::Port(8080));
        let answer = request.send().await?;
        let token = answer.auth_token().get("X-aws-proxy-auth");
        Ok(token.ok_or("the answer has no token")?.to_owned())
    }

    /// Suspends a MicroVM; how long that takes.
    pub(crate) async fn suspend(&self, id: &str) -> Result<Duration, Failure> {
        let began = Instant::now();
        self.0.suspend_microvm().microvm_identifier(id).send().await?;
        self.reach(id, &MicrovmState::Suspended, began).await
    }

    /// Terminates a MicroVM; how long that takes.
    pub(crate) async fn terminate(&self, id: &str) -> Result<Duration, Failure> {
        let began = Instant::now();
        self.0.terminate_microvm().microvm_identifier(id).send().await?;
        self.reach(id, &MicrovmState::Terminated, began).await
    }

    async fn reach(&self, id: &str, state: &MicrovmState, began: Instant) -> Result<Duration, Failure> {
        while began.elapsed() < SETTLE {
            let answer = self.0.get_microvm().microvm_identifier(id).send().await?;
            if answer.state() == state {
                return Ok(began.elapsed());
            }
            if *answer.state() == MicrovmState::Terminated {
                return Err(format!("{id} ended: {}", answer.state_reason().unwrap_or_default()).into());
            }
            tokio::time::sleep(POLL).await;
        }
        Err(format!("{id} is not {state} after {SETTLE:?}").into())
    }
}
