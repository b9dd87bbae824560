//! The settings of a server. `config.toml` beside this crate's sources says what each is for.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use api::Operation;
use connectors::{SecurityGroup, Subnet};
use control::{OtherArchitectures, Quotas, Rates};
use engine::accelerator::Wish;
use forward::CloudWatchSettings;
use ids::AccountId;
use network::{Cidr, dns};
use proxy::Allowance;
use serde::{Deserialize, Deserializer};

use crate::certificate_files::CertificateFiles;
use crate::engines::EngineWish;
use crate::{acme, cli, networks};

/// vCPUs that a VM can have.
const VCPUS: std::ops::RangeInclusive<u32> = 1..=16;
/// MiB of memory that a build VM can have: below, the builder itself does not fit.
const BUILD_MEMORY_MIB: std::ops::RangeInclusive<u32> = 512..=32_768;
/// More than any host has.
const MAX_MIB: u64 = 1 << 40;
/// MiB that logs can be limited to: less holds no more than a few segments.
const LOG_MIB: std::ops::RangeInclusive<u64> = 16..=MAX_MIB;
const MAX_DOMAIN_CHARS: usize = 128;

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the settings in {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    /// It is not what it should be.
    #[error("cannot use the settings in {path}: {source}crates/rekindle/config.toml lists them all")]
    Parse { path: PathBuf, source: Box<toml::de::Error> },
    /// A value is out of its range.
    #[error("cannot use {name} = {value:?}: give {wanted}")]
    Value { name: &'static str, value: String, wanted: &'static str },
}

/// What can be set, and what it is when it is not.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    pub(crate) region: String,
    pub(crate) domain: String,
    pub(crate) endpoint_certificate: Option<CertificateFiles>,
    pub(crate) domains: Vec<String>,
    pub(crate) domain_certificates: Vec<CertificateFiles>,
    pub(crate) acme: Option<acme::Settings>,
    pub(crate) account: Option<AccountId>,
    #[serde(deserialize_with = "cidr")]
    pub(crate) slot_cidr: Option<Cidr>,
    pub(crate) engine: EngineWish,
    pub(crate) accelerator: Wish,
    pub(crate) other_architectures: OtherArchitectures,
    pub(crate) max_slots: u32,
    pub(crate) ready_slots: usize,
    pub(crate) max_spares: usize,
    pub(crate) first_uid: Option<u32>,
    pub(crate) interface_endpoint: bool,
    pub(crate) baseline_cpus: Option<u32>,
    pub(crate) memory_mib: Option<u64>,
    pub(crate) memory_reserve_mib: u64,
    pub(crate) disk_reserve_mib: u64,
    pub(crate) build_vcpus: u32,
    pub(crate) build_memory_mib: u32,
    pub(crate) build_cache_mib: u64,
    #[serde(deserialize_with = "name_servers")]
    pub(crate) name_servers: Vec<SocketAddr>,
    pub(crate) aliases: BTreeMap<String, String>,
    #[serde(rename = "subnet", deserialize_with = "networks::subnets")]
    pub(crate) subnets: BTreeMap<String, Subnet>,
    #[serde(rename = "security_group", deserialize_with = "networks::groups")]
    pub(crate) security_groups: BTreeMap<String, SecurityGroup>,
    pub(crate) quotas: Quotas,
    pub(crate) rates: BTreeMap<String, RateSetting>,
    pub(crate) endpoint_limits: EndpointLimits,
    pub(crate) traces: otlp::Settings,
    pub(crate) logs: LogSettings,
}

/// How often an account may call an operation.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RateSetting {
    per_second: f64,
    burst: f64,
}

/// What a MicroVM may have of its endpoint, for each processor of its class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EndpointLimits {
    requests_per_second: Option<f64>,
    open_requests: Option<usize>,
    bytes_per_second: Option<f64>,
}

impl EndpointLimits {
    pub(crate) fn for_each_processor(self) -> Allowance {
        let Self { requests_per_second, open_requests, bytes_per_second } = self;
        Allowance { requests_per_second, open_requests, bytes_per_second }
    }

    fn check(self) -> Result<(), ConfigError> {
        for (name, rate) in [
            ("endpoint_limits.requests_per_second", self.requests_per_second),
            ("endpoint_limits.bytes_per_second", self.bytes_per_second),
        ] {
            let fine = rate.is_none_or(|rate| rate.is_finite() && rate > 0.0);
            require(fine, name, &rate.unwrap_or_default(), "a number above 0")?;
        }
        let some = self.open_requests.is_none_or(|most| most > 0);
        require(some, "endpoint_limits.open_requests", &self.open_requests.unwrap_or_default(), "1 or more")
    }
}

/// How much logs may take on the disk, and where they go besides.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LogSettings {
    stream_mib: u64,
    account_mib: u64,
    pub(crate) otlp: otlp::Settings,
    pub(crate) cloudwatch: Option<CloudWatchSettings>,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { stream_mib: 256, account_mib: 4096, otlp: otlp::Settings::default(), cloudwatch: None }
    }
}

impl LogSettings {
    pub(crate) fn quota(&self) -> logs::Quota {
        logs::Quota { stream: self.stream_mib << 20, account: self.account_mib << 20 }
    }

    fn check(&self) -> Result<(), ConfigError> {
        for (name, mib) in [("logs.stream_mib", self.stream_mib), ("logs.account_mib", self.account_mib)] {
            require(LOG_MIB.contains(&mib), name, &mib, "MiB, 16 to 2^40")?;
        }
        Ok(())
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            region: "us-east-1".into(),
            domain: "localhost".into(),
            endpoint_certificate: None,
            domains: Vec::new(),
            domain_certificates: Vec::new(),
            acme: None,
            account: None,
            slot_cidr: None,
            engine: EngineWish::default(),
            accelerator: Wish::default(),
            other_architectures: OtherArchitectures::default(),
            max_slots: 1024,
            ready_slots: 4,
            max_spares: 64,
            first_uid: None,
            interface_endpoint: false,
            baseline_cpus: None,
            memory_mib: None,
            memory_reserve_mib: 512,
            disk_reserve_mib: 1024,
            build_vcpus: 2,
            build_memory_mib: 2048,
            build_cache_mib: 10_240,
            name_servers: Vec::new(),
            aliases: BTreeMap::new(),
            subnets: BTreeMap::new(),
            security_groups: BTreeMap::new(),
            quotas: Quotas::default(),
            rates: BTreeMap::new(),
            endpoint_limits: EndpointLimits::default(),
            traces: otlp::Settings::default(),
            logs: LogSettings::default(),
        }
    }
}

impl Config {
    /// The settings of the file, if there is one, and of the command line.
    pub(crate) fn load(file: Option<&Path>, aliases: &[(String, String)]) -> Result<Self, ConfigError> {
        let mut config = file.map_or_else(|| Ok(Self::default()), Self::read)?;
        config.aliases.extend(aliases.iter().cloned());
        config.check()?;
        Ok(config)
    }

    fn read(path: &Path) -> Result<Self, ConfigError> {
        let text =
            fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.into(), source })?;
        toml::from_str(&text)
            .map_err(|source| ConfigError::Parse { path: path.into(), source: Box::new(source) })
    }

    /// What the command line says of VMMs goes before.
    pub(crate) fn prefer(&mut self, machines: &cli::Machines) {
        self.engine = machines.engine.unwrap_or(self.engine);
        self.accelerator = machines.accelerator.map_or(self.accelerator, Wish::from);
    }

    /// AWS's rates for this host's processors, but for those that are set.
    pub(crate) fn rates(&self) -> Rates {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let set = self.rates.iter().filter_map(|(name, rate)| Some((operation(name)?, rate)));
        set.fold(Rates::of_host(processors), |rates, (operation, rate)| {
            rates.with(operation, rate.per_second, rate.burst)
        })
    }

    fn check(&self) -> Result<(), ConfigError> {
        for (name, rate) in &self.rates {
            require(
                operation(name).is_some(),
                "rates",
                name,
                "the name of an operation, such as RunMicrovm",
            )?;
            let fine = rate.per_second > 0.0 && rate.burst >= 1.0;
            require(fine, "rates", name, "per_second above 0 and burst of 1 or more")?;
        }
        self.endpoint_limits.check()?;
        self.logs.check()?;
        require(ids::is_region(&self.region), "region", &self.region, "a name such as us-east-1")?;
        require(is_domain(&self.domain), "domain", &self.domain, "a domain name in lower case")?;
        for name in &self.domains {
            let fine = is_domain(name.strip_prefix("*.").unwrap_or(name)) && name.contains('.');
            require(fine, "domains", name, "host names in lower case, or *.NAME for those right below one")?;
        }
        if let Some(acme) = &self.acme {
            let https = acme.directory.starts_with("https://");
            require(https, "acme.directory", &acme.directory, "an address that begins with https://")?;
        }
        require(self.max_slots > 0, "max_slots", &self.max_slots, "1 or more")?;
        let ready = u32::try_from(self.ready_slots).is_ok_and(|ready| ready <= self.max_slots);
        require(ready, "ready_slots", &self.ready_slots, "at most as many as max_slots")?;
        let uids = self.first_uid.is_none_or(|uid| uid > 0 && uid.checked_add(self.max_slots).is_some());
        require(
            uids,
            "first_uid",
            &self.first_uid.unwrap_or(0),
            "a user id above 0, with max_slots more above it",
        )?;
        for (name, mib) in [
            ("memory_mib", self.memory_mib.unwrap_or(1)),
            ("memory_reserve_mib", self.memory_reserve_mib),
            ("disk_reserve_mib", self.disk_reserve_mib),
            ("build_cache_mib", self.build_cache_mib),
        ] {
            require(mib <= MAX_MIB, name, &mib, "MiB, at most 2^40")?;
        }
        let cpus = self.baseline_cpus.unwrap_or(1);
        require(cpus > 0, "baseline_cpus", &cpus, "1 or more")?;
        require(VCPUS.contains(&self.build_vcpus), "build_vcpus", &self.build_vcpus, "1 to 16")?;
        let memory = BUILD_MEMORY_MIB.contains(&self.build_memory_mib);
        require(memory, "build_memory_mib", &self.build_memory_mib, "512 to 32768")
    }
}

fn operation(name: &str) -> Option<Operation> {
    api::OPERATIONS.iter().find(|model| model.name == name).map(|model| model.operation)
}

fn require(
    fine: bool,
    name: &'static str,
    value: &dyn ToString,
    wanted: &'static str,
) -> Result<(), ConfigError> {
    if fine { Ok(()) } else { Err(ConfigError::Value { name, value: value.to_string(), wanted }) }
}

fn is_domain(text: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(letter)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= MAX_DOMAIN_CHARS && text.split('.').all(label)
}

fn cidr<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Cidr>, D::Error> {
    let text = String::deserialize(from)?;
    Cidr::from_str(&text).map(Some).map_err(serde::de::Error::custom)
}

/// Each with its port.
fn name_servers<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<SocketAddr>, D::Error> {
    let texts: Vec<String> = Vec::deserialize(from)?;
    let parse = |text: &String| {
        let without_port = text.parse::<IpAddr>().map(|address| SocketAddr::new(address, dns::PORT));
        without_port
            .or_else(|_| text.parse())
            .map_err(|error| serde::de::Error::custom(format!("{text:?}: {error}")))
    };
    if texts.len() > dns::MAX_UPSTREAMS {
        let message = format!("name_servers has {}, more than {}", texts.len(), dns::MAX_UPSTREAMS);
        return Err(serde::de::Error::custom(message));
    }
    texts.iter().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENTED: &str = include_str!("../config.toml");

    fn parse(text: &str) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.toml");
        fs::write(&file, text).unwrap();
        Config::load(Some(&file), &[])
    }

    #[test]
    fn the_documented_values_are_the_defaults() {
        assert_eq!(parse(DOCUMENTED).unwrap(), Config::default());
        assert_eq!(parse("").unwrap(), Config::default());
        assert_eq!(Config::load(None, &[]).unwrap(), Config::default());
    }

    #[test]
    fn every_documented_setting_exists() {
        let settings = DOCUMENTED.lines().map(|line| match line.strip_prefix('#') {
            Some(setting) if !setting.starts_with(' ') => setting,
            _ => line,
        });
        let config = parse(&settings.collect::<Vec<_>>().join("\n")).unwrap();
        assert!(config.account.is_some() && config.slot_cidr.is_some() && config.first_uid.is_some());
        assert_eq!((config.subnets.len(), config.security_groups.len()), (1, 1));
        assert_eq!((config.aliases.len(), config.rates.len()), (1, 1));
        assert_ne!(config.endpoint_limits, EndpointLimits::default());
        assert!(config.endpoint_certificate.is_some());
        let acme = config.acme.unwrap();
        assert!(!acme.contact.is_empty() && acme.ca_bundle.is_some() && acme.dns_hook.is_some());
        assert_eq!((config.domains.len(), config.domain_certificates.len()), (2, 1));
        let servers = ["10.0.0.53:53", "[2001:db8::53]:5353"].map(|server| server.parse().unwrap());
        assert_eq!(config.name_servers, servers);
        assert!(config.traces.endpoint.is_some() && config.traces.service_name.is_some());
        assert!(config.logs.otlp.endpoint.is_some() && config.logs.cloudwatch.unwrap().endpoint.is_some());
    }

    #[test]
    fn the_command_line_overrides_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.toml");
        fs::write(&file, "[aliases]\na = \"b\"\nc = \"d\"").unwrap();
        let config = Config::load(Some(&file), &[("a".into(), "e".into())]).unwrap();
        assert_eq!(config.aliases, [("a", "e"), ("c", "d")].map(|(a, b)| (a.into(), b.into())).into());
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        for (text, named) in [
            ("regoin = \"x\"", "regoin"),
            ("region = \"US East\"", "region"),
            ("domain = \"-x\"", "domain"),
            ("domain = \"\"", "domain"),
            ("domains = [\"*.*.example.com\"]", "domains"),
            ("domains = [\"Example.com\"]", "domains"),
            ("account = \"12\"", "account"),
            ("slot_cidr = \"10.0.0.1/8\"", "slot_cidr"),
            ("max_slots = 0", "max_slots"),
            ("max_slots = 3", "ready_slots"),
            ("first_uid = 0", "first_uid"),
            ("first_uid = 4294967295", "first_uid"),
            ("build_vcpus = 17", "build_vcpus"),
            ("build_memory_mib = 100", "build_memory_mib"),
            ("baseline_cpus = 0", "baseline_cpus"),
            ("name_servers = [\"dns.example.com\"]", "dns.example.com"),
            ("name_servers = [\"::1\", \"::1\", \"::1\", \"::1\"]", "name_servers"),
            ("[quotas]\nimage = 1", "image"),
            ("endpoint_certificate = { chain = \"x\" }", "key"),
            ("[endpoint_limits]\nbytes_per_second = 0", "bytes_per_second"),
            ("[endpoint_limits]\nopen_requests = 0", "open_requests"),
            ("[logs]\nstream_mib = 1", "stream_mib"),
            ("[logs.cloudwatch]\nkey = \"x\"", "key"),
            ("[acme]\ncontact = []", "directory"),
            ("[acme]\ndirectory = \"http://x\"", "acme.directory"),
            ("[traces]\nendpoints = \"x\"", "endpoints"),
            ("[rates]\nRun = { per_second = 1, burst = 1 }", "rates"),
            ("[rates]\nRunMicrovm = { per_second = 0, burst = 1 }", "rates"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(named), "{text}: {error}");
        }
        let error = Config::load(Some(Path::new("/nowhere.toml")), &[]).unwrap_err().to_string();
        assert!(error.contains("/nowhere.toml"), "{error}");
    }
}
