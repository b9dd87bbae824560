//! What a guest is told of itself: the host's side of the metadata service (SPEC §8).
//!
//! The guest asks each time that a program in it does, so that no credentials are in its agent's keeping, none get into a
//! snapshot, and a launch costs nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use agent_proto::host::Describer;
use agent_proto::{Credentials, Metadata};
use iam::{RoleCredentials, RoleUse};
use ids::ImageArn;
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

/// Seconds that a set of credentials lasts.
const LIFETIME: u64 = 55 * 60;
/// Seconds before its end from which on a set is replaced when it is asked for: SDKs want to see the next one in time.
const REPLACED_BEFORE: u64 = 5 * 60;
const MOMENT: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");

/// What a guest is.
#[derive(Debug, Clone)]
pub struct Persona {
    /// Name of the sessions of its role.
    pub name: String,
    /// The image that it is of.
    pub image: ImageArn,
    /// ARN of the role that it acts as.
    pub role: Option<String>,
}

/// Describes guests to themselves.
#[derive(Debug)]
pub struct MetadataService {
    roles: Arc<dyn RoleCredentials>,
    /// By the name of the session, so that a MicroVM finds after a sleep what it had before. What has expired is dropped.
    issued: Mutex<HashMap<String, Issued>>,
}

#[derive(Debug)]
struct Issued {
    expires_at: u64,
    credentials: Credentials,
}

impl MetadataService {
    /// Whose guests act as what `roles` lets them.
    #[must_use]
    pub fn new(roles: Arc<dyn RoleCredentials>) -> Arc<Self> {
        Arc::new(Self { roles, issued: Mutex::default() })
    }

    /// Describes a guest whose life begins now.
    #[must_use]
    pub fn describer(self: &Arc<Self>, persona: Persona) -> Describer {
        let (service, begun) = (Arc::clone(self), now());
        Arc::new(move || Some(service.describe(&persona, begun, now())))
    }

    fn describe(&self, persona: &Persona, begun: u64, now: u64) -> Metadata {
        Metadata {
            region: persona.image.region.clone(),
            availability_zone_id: availability_zone_id(&persona.image.region),
            group_key: self.roles.group_key(&persona.image.to_string()),
            credentials: persona.role.as_deref().and_then(|role| self.credentials(persona, role, begun, now)),
        }
    }

    /// Those of this life, which begins with those that are left of the one before; while a life goes on, others follow.
    fn credentials(&self, persona: &Persona, role: &str, begun: u64, now: u64) -> Option<Credentials> {
        let is_fresh = |expires_at: u64| now + REPLACED_BEFORE < expires_at;
        // A panic elsewhere left it whole: a set is put in at once.
        let mut issued = self.issued.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(set) = issued.get(&persona.name).filter(|set| is_fresh(set.expires_at)) {
            return Some(set.credentials.clone());
        }
        // They are issued when they are first asked for, and are as old as the life all the same.
        let issued_at = if is_fresh(begun + LIFETIME) { begun } else { now };
        let set = self.issue(persona, role, issued_at)?;
        issued.retain(|_, set| now < set.expires_at);
        let credentials = set.credentials.clone();
        issued.insert(persona.name.clone(), set);
        Some(credentials)
    }

    fn issue(&self, persona: &Persona, role: &str, issued_at: u64) -> Option<Issued> {
        let (account, image) = (persona.image.account.to_string(), persona.image.to_string());
        let wanted =
            RoleUse { role_arn: role, account: &account, source_arn: &image, session: &persona.name };
        let expires_at = issued_at + LIFETIME;
        match self.roles.issue(&wanted, issued_at, expires_at) {
            Ok(keys) => Some(Issued {
                expires_at,
                credentials: Credentials {
                    access_key_id: keys.access_key_id,
                    secret_access_key: keys.secret_access_key,
                    session_token: keys.session_token,
                    last_updated: iso(issued_at),
                    expiration: iso(expires_at),
                },
            }),
            Err(why) => {
                tracing::warn!(name = persona.name, why, "no credentials for a guest");
                None
            }
        }
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn iso(seconds: u64) -> String {
    let moment = i64::try_from(seconds).ok().and_then(|at| OffsetDateTime::from_unix_timestamp(at).ok());
    moment.and_then(|at| at.format(MOMENT).ok()).unwrap_or_default()
}

/// `use1-az1` of `us-east-1`: a host is one zone. Words are cut to their first letters, but for the area's.
fn availability_zone_id(region: &str) -> String {
    let mut words = region.split('-');
    let mut short = words.next().unwrap_or_default().to_owned();
    for word in words {
        match word {
            "northeast" | "northwest" | "southeast" | "southwest" => {
                short.extend([&word[..1], &word[5..6]]);
            }
            number if number.starts_with(|first: char| first.is_ascii_digit()) => short += number,
            word => short.extend(word.chars().next()),
        }
    }
    short + "-az1"
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use iam::RoleKeys;

    use super::*;

    /// Counts what it issues, to those who are let in.
    #[derive(Debug, Default)]
    struct Counting(AtomicU64);

    impl RoleCredentials for Counting {
        fn issue(&self, wanted: &RoleUse<'_>, issued_at: u64, expires_at: u64) -> Result<RoleKeys, String> {
            assert_eq!(expires_at - issued_at, LIFETIME);
            if wanted.role_arn == "closed" {
                return Err("not you".into());
            }
            let count = self.0.fetch_add(1, Ordering::Relaxed);
            Ok(RoleKeys { access_key_id: format!("{}-{count}", wanted.session), ..RoleKeys::default() })
        }

        fn group_key(&self, group: &str) -> String {
            group.to_owned()
        }
    }

    fn persona(name: &str, role: Option<&str>) -> Persona {
        let image = "arn:aws:lambda:eu-west-1:123456789012:microvm-image:web".parse().unwrap();
        Persona { name: name.into(), image, role: role.map(str::to_owned) }
    }

    #[test]
    fn credentials_last_for_55_minutes_of_a_life_and_over_a_shorter_sleep() {
        let service = MetadataService::new(Arc::new(Counting::default()));
        let ask = |name, begun, now| {
            let credentials = service.describe(&persona(name, Some("open")), begun, now).credentials.unwrap();
            (credentials.access_key_id, credentials.last_updated, credentials.expiration)
        };
        let minute = |count: u64| 1_800_000_000 + count * 60;
        let first = ask("a", minute(0), minute(2));
        assert_eq!(first, ("a-0".into(), "2027-01-15T08:00:00Z".into(), "2027-01-15T08:55:00Z".into()));
        assert_eq!(ask("a", minute(0), minute(49)), first, "unexpired ones are unchanged");
        assert_eq!(ask("a", minute(30), minute(31)), first, "also after a sleep");
        assert_eq!(ask("a", minute(0), minute(51)).1, "2027-01-15T08:51:00Z", "replaced before their end");
        assert_eq!(
            ask("a", minute(170), minute(171)).2,
            "2027-01-15T11:45:00Z",
            "expired in a sleep: as of the wake"
        );
        assert_eq!(ask("b", minute(171), minute(171)).0, "b-3", "another MicroVM's");
        assert_eq!(service.issued.lock().unwrap().len(), 2);
        ask("c", minute(300), minute(300));
        assert_eq!(service.issued.lock().unwrap().len(), 1, "what has expired is dropped");
    }

    #[test]
    fn without_a_role_that_lets_it_in_a_guest_has_no_credentials() {
        let service = MetadataService::new(Arc::new(Counting::default()));
        let metadata = service.describe(&persona("a", None), 0, 0);
        assert_eq!((metadata.credentials, metadata.region.as_str()), (None, "eu-west-1"));
        assert_eq!(service.describe(&persona("a", Some("closed")), 0, 0).credentials, None);
    }

    #[test]
    fn zones_are_named_as_in_aws() {
        let ids = ["us-east-1", "ap-northeast-1", "eu-central-1", "us-gov-west-1", "ap-southeast-2"];
        let known = ["use1-az1", "apne1-az1", "euc1-az1", "usgw1-az1", "apse2-az1"];
        assert_eq!(ids.map(availability_zone_id), known);
        assert_eq!(availability_zone_id(""), "-az1");
    }
}
