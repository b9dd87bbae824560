//! Identifiers and ARNs: what is read must print as itself, or as what is read the same.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use ids::{AccountId, BuildId, EndpointId, ImageArn, ImageName, ImageVersion, MicrovmId};

pub(crate) fn ids(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    stable::<MicrovmId>(text);
    stable::<EndpointId>(text);
    stable::<BuildId>(text);
    stable::<ImageVersion>(text);
    itself::<AccountId>(text);
    itself::<ImageName>(text);
    itself::<ImageArn>(text);
}

/// Prints what is read as the same again, if not in the same letters.
fn stable<T: FromStr + Display + PartialEq + Debug>(text: &str) -> Option<String> {
    let read: T = text.parse().ok()?;
    let printed = read.to_string();
    assert_eq!(printed.parse().ok().as_ref(), Some(&read), "{text} is read as another than {printed}");
    Some(printed)
}

/// Prints what was read.
fn itself<T: FromStr + Display + PartialEq + Debug>(text: &str) {
    if let Some(printed) = stable::<T>(text) {
        assert_eq!(printed, text, "two texts of one name");
    }
}
