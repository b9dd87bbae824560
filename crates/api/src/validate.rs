//! The rules of §2.4. First those of the model, all that are broken in one message; then the others, one by one.

use ids::{ImageArn, ImageVersion};

use crate::image::ImageConfig;
use crate::microvm::{IdlePolicy, MAX_TOKEN_MINUTES, PortSpecification};
use crate::{Error, ErrorKind, Hooks, Logging, ManagedConnector, Tags};

/// Most environment variables of an image.
pub const MAX_ENVIRONMENT_VARIABLES: usize = 100;
/// Longest page of a listing, and its default.
pub const MAX_RESULTS: i64 = 50;
/// Keys that we set ourselves.
pub const RESERVED_ENVIRONMENT: [&str; 4] = [
    "AWS_REGION",
    "AWS_LAMBDA_MICROVM_IMAGE_NAME",
    "AWS_LAMBDA_MICROVM_IMAGE_ARN",
    "AWS_LAMBDA_MICROVM_IMAGE_VERSION",
];

const MAX_TEXT: usize = 2048;
const MAX_PORT: i64 = 65_535;
const MAX_IMAGE_CONNECTORS: usize = 1;
const MAX_RESOURCES: usize = 1;
const ROLE_PATTERN: &str = r"arn:aws[a-z\-]*:iam::[0-9]{12}:role/?[a-zA-Z_0-9+=,.@\-_/]+";
const LOG_GROUP_PATTERN: &str = r"[a-zA-Z0-9_\-/.#]+";
const IMAGE_NAME_PATTERN: &str = "[a-zA-Z0-9-_]+";
const TAG_PATTERN: &str = r"([\p{L}\p{Z}\p{N}_.:/=+\-@]*)";

/// Collects the model's rules that a request breaks.
#[derive(Debug, Default)]
pub struct Constraints {
    broken: Vec<String>,
}

impl Constraints {
    /// Answers all that is broken.
    pub fn finish(self) -> Result<(), Error> {
        let count = self.broken.len();
        match count {
            0 => Ok(()),
            _ => {
                let errors = if count == 1 { "error" } else { "errors" };
                Err(Error::validation(format!(
                    "{count} validation {errors} detected: {}",
                    self.broken.join("; ")
                )))
            }
        }
    }

    fn check(&mut self, holds: bool, member: &str, rule: impl FnOnce() -> String) {
        if !holds {
            self.broken
                .push(format!("Value at '{member}' failed to satisfy constraint: Member must {}", rule()));
        }
    }

    /// Characters of a text.
    pub fn length(&mut self, member: &str, text: &str, min: usize, max: usize) {
        self.size(member, "length", text.chars().count(), min, max);
    }

    fn size(&mut self, member: &str, what: &str, size: usize, min: usize, max: usize) {
        self.check(size >= min, member, || format!("have {what} greater than or equal to {min}"));
        self.check(size <= max, member, || format!("have {what} less than or equal to {max}"));
    }

    fn items<T>(&mut self, member: &str, list: Option<&[T]>, max: usize) {
        self.size(member, "length", list.map_or(0, <[T]>::len), 0, max);
    }

    fn pattern(&mut self, member: &str, pattern: &str, matches: bool) {
        self.check(matches, member, || format!("satisfy regular expression pattern: {pattern}"));
    }

    /// A number that has a least value.
    pub fn at_least(&mut self, member: &str, value: i64, min: i64) {
        self.check(value >= min, member, || format!("have value greater than or equal to {min}"));
    }

    /// A number that has both, where given.
    pub fn range(&mut self, member: &str, value: Option<i64>, min: i64, max: i64) {
        let Some(value) = value else { return };
        self.at_least(member, value, min);
        self.check(value <= max, member, || format!("have value less than or equal to {max}"));
    }

    /// An ARN or id.
    pub fn identifier(&mut self, member: &str, text: &str) {
        self.length(member, text, 1, 256);
    }

    /// Text with something to see in it.
    pub fn non_blank(&mut self, member: &str, text: &str) {
        self.length(member, text, 1, MAX_TEXT);
        self.pattern(member, r"[^\s]+", is_solid(text));
    }

    /// A version, where given.
    pub fn optional_version(&mut self, member: &str, text: Option<&str>) {
        if let Some(text) = text {
            self.non_blank(member, text);
        }
    }

    /// An image's name.
    pub fn image_name(&mut self, member: &str, text: &str) {
        self.length(member, text, 1, 64);
        let legal = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        self.pattern(member, IMAGE_NAME_PATTERN, !text.is_empty() && text.chars().all(legal));
    }

    /// A role's ARN.
    pub fn role(&mut self, member: &str, text: &str) {
        self.length(member, text, 20, MAX_TEXT);
        self.pattern(member, ROLE_PATTERN, is_role(text));
    }

    /// An idempotency token.
    pub fn client_token(&mut self, token: Option<&str>) {
        if let Some(token) = token {
            self.length("clientToken", token, 1, 128);
        }
    }

    /// The length of a page.
    pub fn max_results(&mut self, value: Option<i64>) {
        self.range("maxResults", value, 1, MAX_RESULTS);
    }

    /// A list of connectors.
    pub fn connectors(&mut self, member: &str, list: Option<&[String]>, max: usize) {
        self.items(member, list, max);
        for (index, connector) in list.into_iter().flatten().enumerate() {
            self.length(&format!("{member}.{}.member", index + 1), connector, 1, MAX_TEXT);
        }
    }

    /// Tags.
    pub fn tags(&mut self, tags: Option<&Tags>) {
        for (key, value) in tags.into_iter().flatten() {
            self.length("tags", key, 1, 128);
            self.length("tags", value, 0, 256);
            self.pattern("tags", TAG_PATTERN, key.chars().chain(value.chars()).all(is_tag_character));
        }
    }

    /// When a MicroVM sleeps.
    pub fn idle_policy(&mut self, policy: Option<&IdlePolicy>) {
        let Some(policy) = policy else { return };
        self.at_least("idlePolicy.maxIdleDurationSeconds", policy.max_idle_duration_seconds, 60);
        self.at_least("idlePolicy.suspendedDurationSeconds", policy.suspended_duration_seconds, 0);
    }

    /// Where output goes.
    pub fn logging(&mut self, logging: Option<&Logging>) {
        let Some(Logging::CloudWatch(logs)) = logging else { return };
        if let Some(group) = &logs.log_group {
            self.length("logging.cloudWatch.logGroup", group, 1, 512);
            let legal = |c: char| c.is_ascii_alphanumeric() || "_-/.#".contains(c);
            self.pattern("logging.cloudWatch.logGroup", LOG_GROUP_PATTERN, group.chars().all(legal));
        }
        if let Some(stream) = &logs.log_stream {
            self.length("logging.cloudWatch.logStream", stream, 1, 512);
            self.pattern("logging.cloudWatch.logStream", "[^:*]*", !stream.contains([':', '*']));
        }
    }

    /// Ports of a token.
    pub fn ports(&mut self, member: &str, ports: &[PortSpecification]) {
        self.check(!ports.is_empty(), member, || "have length greater than or equal to 1".into());
        for (index, port) in ports.iter().enumerate() {
            let member = format!("{member}.{}.member", index + 1);
            match port {
                PortSpecification::Port(port) => {
                    self.range(&format!("{member}.port"), Some(*port), 1, MAX_PORT);
                }
                PortSpecification::Range(range) => {
                    self.range(&format!("{member}.range.startPort"), Some(range.start_port), 1, MAX_PORT);
                    self.range(
                        &format!("{member}.range.endPort"),
                        Some(range.end_port),
                        range.start_port,
                        MAX_PORT,
                    );
                }
                PortSpecification::AllPorts(_) => {}
            }
        }
    }

    /// What a version is made from.
    pub fn image_config(&mut self, config: &ImageConfig) {
        self.non_blank("baseImageArn", &config.base_image_arn);
        self.optional_version("baseImageVersion", config.base_image_version.as_deref());
        self.role("buildRoleArn", &config.build_role_arn);
        self.logging(config.logging.as_ref());
        let connectors = config.egress_network_connectors.as_deref();
        self.connectors("egressNetworkConnectors", connectors, MAX_IMAGE_CONNECTORS);
        self.items("resources", config.resources.as_deref(), MAX_RESOURCES);
        self.hooks(config.hooks.as_ref());
        self.environment(config);
    }

    fn environment(&mut self, config: &ImageConfig) {
        let Some(variables) = &config.environment_variables else { return };
        self.size("environmentVariables", "length", variables.len(), 0, MAX_ENVIRONMENT_VARIABLES);
        for (key, value) in variables {
            self.length("environmentVariables", key, 1, 256);
            self.pattern("environmentVariables", r"[^\s]+", is_solid(key));
            self.length(&format!("environmentVariables.{key}.member"), &value.0, 0, 4096);
        }
    }

    fn hooks(&mut self, hooks: Option<&Hooks>) {
        let Some(hooks) = hooks else { return };
        self.range("hooks.port", hooks.port, 1, MAX_PORT);
        if let Some(life) = &hooks.microvm_hooks {
            for (name, timeout) in [
                ("run", life.run_timeout_in_seconds),
                ("resume", life.resume_timeout_in_seconds),
                ("suspend", life.suspend_timeout_in_seconds),
                ("terminate", life.terminate_timeout_in_seconds),
            ] {
                self.range(&format!("hooks.microvmHooks.{name}TimeoutInSeconds"), timeout, 1, 60);
            }
        }
        if let Some(build) = &hooks.microvm_image_hooks {
            for (name, timeout) in
                [("ready", build.ready_timeout_in_seconds), ("validate", build.validate_timeout_in_seconds)]
            {
                self.range(&format!("hooks.microvmImageHooks.{name}TimeoutInSeconds"), timeout, 1, 3600);
            }
        }
    }
}

fn is_solid(text: &str) -> bool {
    !text.is_empty() && !text.contains(char::is_whitespace)
}

fn is_tag_character(c: char) -> bool {
    c.is_alphanumeric() || c == ' ' || "_.:/=+-@".contains(c)
}

fn is_role(text: &str) -> bool {
    let Some((partition, rest)) = text.strip_prefix("arn:aws").and_then(|rest| rest.split_once(":iam::"))
    else {
        return false;
    };
    let Some((account, name)) = rest.split_once(":role") else { return false };
    let legal = |c: char| c.is_ascii_alphanumeric() || "+=,.@-_/".contains(c);
    partition.chars().all(|c| c.is_ascii_lowercase() || c == '-')
        && account.parse::<ids::AccountId>().is_ok()
        && !name.trim_start_matches('/').is_empty()
        && name.chars().all(legal)
}

/// The image that an identifier names, with the errors of the image operations.
pub fn image_arn(text: &str) -> Result<ImageArn, Error> {
    if text.contains(":microvm-image/") {
        let message = format!("The resource {text} is malformed: write microvm-image:<name>, with a colon");
        return Err(Error::new(ErrorKind::AccessDenied, message));
    }
    text.parse().map_err(|_| Error::validation(format!("Invalid ARN format: {text}")))
}

/// The version that a text names: whatever is no version does not exist.
pub fn image_version(image: &str, text: &str) -> Result<ImageVersion, Error> {
    text.parse().map_err(|_| Error::unknown_version(image, text))
}

/// Whether every connector is known and of the right direction.
pub fn connectors(list: Option<&[String]>, allowed: impl Fn(ManagedConnector) -> bool) -> Result<(), Error> {
    for arn in list.into_iter().flatten() {
        if !allowed(ManagedConnector::from_arn(arn)?) {
            return Err(Error::validation(format!("Network connector {arn} is for the other direction")));
        }
    }
    Ok(())
}

/// The longest life of a token.
pub fn token_life(minutes: i64) -> Result<(), Error> {
    if minutes <= MAX_TOKEN_MINUTES {
        return Ok(());
    }
    Err(Error::validation(format!(
        "ExpirationMinutes {minutes} exceeded max allowed of {MAX_TOKEN_MINUTES}."
    )))
}

/// What a version is made from, beyond the model.
pub fn image_config(config: &ImageConfig) -> Result<(), Error> {
    no_kms(config.kms_key_identifier.as_deref())?;
    config.code_artifact.location()?;
    config.size()?;
    if let Some(hooks) = &config.hooks {
        ready_hook(hooks)?;
    }
    connectors(config.egress_network_connectors.as_deref(), |connector| !connector.is_ingress())?;
    for key in config.environment_variables.iter().flat_map(|variables| variables.keys()) {
        if RESERVED_ENVIRONMENT.contains(&key.as_str()) {
            return Err(Error::validation(format!("Environment variable key '{key}' is reserved")));
        }
    }
    Ok(())
}

/// Whether no key is named: silence would let a client believe that its snapshots are encrypted with it.
pub fn no_kms(key: Option<&str>) -> Result<(), Error> {
    key.map_or(Ok(()), |_| Err(Error::no_kms()))
}

fn ready_hook(hooks: &Hooks) -> Result<(), Error> {
    let ready = hooks.microvm_image_hooks.as_ref().and_then(|hooks| hooks.ready);
    let life = hooks.microvm_hooks.as_ref().is_some_and(crate::MicrovmHooks::any_enabled);
    if !life || ready == Some(crate::HookState::Enabled) {
        return Ok(());
    }
    Err(Error::validation(
        "The ready (/ready) MicroVM image hook must be enabled when any MicroVM lifecycle hook (run, resume, \
         suspend, or terminate) is enabled. The ready hook signals when the application has finished initializing \
         so the snapshot is taken in a ready state.",
    ))
}
