//! What images can be for: this host's architecture, whatever their clients say.

use api::{Architecture, CpuConfiguration, Error};
use serde::Deserialize;

use super::render::HOST;

/// What becomes of an image that is to be for another architecture than the host's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OtherArchitectures {
    /// It is not taken.
    #[default]
    Refuse,
    /// It is built for the host's, and says so. For clients that pin the only one that AWS has.
    Host,
}

impl OtherArchitectures {
    /// # Errors
    /// What the client is told.
    pub(crate) fn check(self, asked: &[CpuConfiguration]) -> Result<(), Error> {
        self.check_on(HOST.0, asked)
    }

    fn check_on(self, host: Architecture, asked: &[CpuConfiguration]) -> Result<(), Error> {
        let other = asked.iter().map(|cpu| cpu.architecture).find(|asked| *asked != host);
        match other {
            Some(other) if self == Self::Refuse => Err(Error::validation(format!(
                "cpuConfigurations asks for {}, and this host runs {} only. Leave it out, or have the operator set \
                 other_architectures = \"host\", with which such images are built for {1}.",
                other.as_str(),
                host.as_str()
            ))),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_hosts_own_is_taken_unless_others_mean_it() {
        let asked = |architectures: &[Architecture]| -> Vec<CpuConfiguration> {
            architectures
                .iter()
                .map(|architecture| CpuConfiguration { architecture: *architecture })
                .collect()
        };
        for (host, other) in
            [(Architecture::X86_64, Architecture::Arm64), (Architecture::Arm64, Architecture::X86_64)]
        {
            let check = |rule: OtherArchitectures, of: &[Architecture]| rule.check_on(host, &asked(of));
            assert!(check(OtherArchitectures::Refuse, &[]).is_ok());
            assert!(check(OtherArchitectures::Refuse, &[host]).is_ok());
            assert!(check(OtherArchitectures::Refuse, &[host, other]).is_err());
            assert!(check(OtherArchitectures::Host, &[other]).is_ok());
        }
    }
}
