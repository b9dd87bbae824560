//! Shapes that several operations share.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Text that logs must not show; its `Debug` hides it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(transparent)]
pub struct Sensitive(pub String);

impl fmt::Debug for Sensitive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[hidden]")
    }
}

/// Tags or other labels: key to value.
pub type Tags = BTreeMap<String, String>;

/// `{}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Unit {}

macro_rules! text_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum $name { $($(#[$vdoc])* #[serde(rename = $text)] $variant),+ }

        impl $name {
            /// The text on the wire.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}
pub(crate) use text_enum;

text_enum!(/// A processor's instruction set.
    Architecture { /** 64-bit Arm. */ Arm64 = "ARM_64", /** 64-bit x86. */ X86_64 = "X86_64" });
text_enum!(/// A maker's line of processors.
    Chipset { /** AWS's Arm. */ Graviton = "GRAVITON", /** x86. */ Intel = "INTEL" });
text_enum!(/// Additional rights of the container.
    Capability { /** Every Linux capability. */ All = "ALL" });
text_enum!(/// Whether a hook is called.
    HookState { /** Not called. */ Disabled = "DISABLED", /** Called. */ Enabled = "ENABLED" });

/// Where output goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Logging {
    /// Nowhere.
    Disabled(Unit),
    /// To a log group.
    CloudWatch(CloudWatchLogging),
}

/// A log group and stream; what is left out has a default.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CloudWatchLogging {
    /// Log group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_group: Option<String>,
    /// Log stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_stream: Option<String>,
}

/// Calls into the application at points of its life.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hooks {
    /// Port they are called on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<i64>,
    /// Those of a MicroVM's life.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub microvm_hooks: Option<MicrovmHooks>,
    /// Those of a build.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub microvm_image_hooks: Option<MicrovmImageHooks>,
}

macro_rules! hook_set {
    ($(#[$doc:meta])* $name:ident { $($(#[$hdoc:meta])* $hook:ident $timeout:ident),+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
        #[serde(rename_all = "camelCase")]
        pub struct $name {
            $(
                $(#[$hdoc])*
                #[serde(skip_serializing_if = "Option::is_none")]
                pub $hook: Option<HookState>,
                /// How long it may take.
                #[serde(skip_serializing_if = "Option::is_none")]
                pub $timeout: Option<i64>,
            )+
        }
    };
}

hook_set!(/// Hooks of a MicroVM's life.
MicrovmHooks {
    /// After the clone from the snapshot.
    run run_timeout_in_seconds,
    /// After each wake-up.
    resume resume_timeout_in_seconds,
    /// Before each suspension.
    suspend suspend_timeout_in_seconds,
    /// Before the end.
    terminate terminate_timeout_in_seconds
});
hook_set!(/// Hooks of a build.
MicrovmImageHooks {
    /// Polled until the snapshot may be taken.
    ready ready_timeout_in_seconds,
    /// Called in a MicroVM made from the new snapshot.
    validate validate_timeout_in_seconds
});

impl MicrovmHooks {
    /// Whether any of them is called.
    #[must_use]
    pub fn any_enabled(&self) -> bool {
        [self.run, self.resume, self.suspend, self.terminate].contains(&Some(HookState::Enabled))
    }
}

/// A page of a listing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "T: Deserialize<'de>"))]
pub struct Page<T> {
    /// This page's items.
    pub items: Vec<T>,
    /// Asks for the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_token: Option<String>,
}
