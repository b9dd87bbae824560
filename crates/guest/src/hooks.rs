//! What a hook's outcome means, in the service's words (SPEC §1.3, §3, §4.1). Pure.

use agent_proto::HookOutcome;

/// Where hooks are called unless the image says otherwise.
pub const DEFAULT_PORT: u16 = 9000;

/// Whether a hook of the build is done, to be asked again, or has failed the build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// 200.
    Ready,
    /// 503, or nothing listens yet.
    NotYet,
    /// Anything else, in words for the build's `stateReason`.
    Failed(String),
}

/// The hooks of a build, `Ready` and `Validate`.
#[must_use]
pub fn readiness(hook: &str, outcome: &HookOutcome) -> Readiness {
    match outcome {
        HookOutcome::Status(200) => Readiness::Ready,
        HookOutcome::Status(503) | HookOutcome::ConnectFailed(_) | HookOutcome::TimedOut => Readiness::NotYet,
        HookOutcome::Status(status) => {
            let (whose, class) = match status {
                400..=499 => ("a client error", "HTTP 4xx"),
                500..=599 => ("a server error", "HTTP 5xx"),
                _ => ("an unexpected", "HTTP"),
            };
            Readiness::Failed(format!(
                "{hook} hook check failed: the application returned {whose} ({class}) response"
            ))
        }
    }
}

/// The build's hook did not succeed within its time.
#[must_use]
pub fn timed_out(hook: &str, seconds: u32) -> String {
    format!("{hook} hook invocation timed out after {}", iso_duration(seconds))
}

/// Why a hook of a MicroVM's life (`Run`, `Resume`, `Suspend`) failed; `None` where it did not.
#[must_use]
pub fn failure(hook: &str, outcome: &HookOutcome, seconds: u32) -> Option<String> {
    const ADVICE: &str = "Please check your hook endpoint and application logs for more details.";
    let what = match outcome {
        HookOutcome::Status(200) => return None,
        HookOutcome::Status(status) => format!("returned HTTP status {status}"),
        HookOutcome::TimedOut => format!("timed out after {}", iso_duration(seconds)),
        HookOutcome::ConnectFailed(why) => format!("could not be called ({why})"),
    };
    Some(format!("{hook} lifecycle hook {what}. {ADVICE}"))
}

/// ISO 8601, as the service writes it: `PT30S`, `PT5M`, `PT1H`.
fn iso_duration(seconds: u32) -> String {
    let parts = [(seconds / 3600, 'H'), (seconds % 3600 / 60, 'M'), (seconds % 60, 'S')];
    let text: String =
        parts.iter().filter(|(count, _)| *count > 0).map(|(count, unit)| format!("{count}{unit}")).collect();
    if text.is_empty() { "PT0S".to_owned() } else { format!("PT{text}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_the_service_does() {
        let written = [0, 1, 30, 90, 300, 3600, 3661].map(iso_duration);
        assert_eq!(written, ["PT0S", "PT1S", "PT30S", "PT1M30S", "PT5M", "PT1H", "PT1H1M1S"]);
    }

    #[test]
    fn a_build_hook_waits_for_200_and_fails_on_the_first_other_answer() {
        assert_eq!(readiness("Ready", &HookOutcome::Status(200)), Readiness::Ready);
        assert_eq!(readiness("Ready", &HookOutcome::Status(503)), Readiness::NotYet);
        assert_eq!(readiness("Ready", &HookOutcome::ConnectFailed("refused".into())), Readiness::NotYet);
        let failed = |status| readiness("Ready", &HookOutcome::Status(status));
        let text = "Ready hook check failed: the application returned a server error (HTTP 5xx) response";
        assert_eq!(failed(500), Readiness::Failed(text.into()));
        let text = "Ready hook check failed: the application returned a client error (HTTP 4xx) response";
        assert_eq!(failed(404), Readiness::Failed(text.into()));
        assert_eq!(timed_out("Validate", 600), "Validate hook invocation timed out after PT10M");
    }

    #[test]
    fn a_life_hook_must_answer_200() {
        assert_eq!(failure("Run", &HookOutcome::Status(200), 1), None);
        assert_eq!(
            failure("Run", &HookOutcome::Status(500), 1).unwrap(),
            "Run lifecycle hook returned HTTP status 500. Please check your hook endpoint and application logs for \
             more details."
        );
        let late = failure("Suspend", &HookOutcome::TimedOut, 1).unwrap();
        assert!(late.starts_with("Suspend lifecycle hook timed out after PT1S. "), "{late}");
    }
}
