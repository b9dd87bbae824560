//! Logs on their way out: to a collector of OpenTelemetry's, and to another server's CloudWatch Logs.

use std::io::Write;
use std::time::Duration;

use rekindle_e2e::{Microvm, Server, until};
use tempfile::NamedTempFile;

use crate::{cloudwatch, collector, fixture};

/// For lines to come: those that were kept before go first.
const FORWARDED: Duration = Duration::from_secs(60);
/// What the probe says last.
const LAST: &str = "ending by SIGTERM";

pub(crate) fn logs_are_forwarded_to_a_collector_and_to_another_server() {
    let there = Server::start();
    let mut server = fixture::exclusive();
    let image = fixture::probe(&server);
    let settings = forwarding_to(&there);
    server.restart_with(&["--config", settings.path().to_str().unwrap()]);
    let microvm = Microvm::run(&server, &image, &[]);
    let id = microvm.id.clone();
    microvm.terminate();

    let lines = until("the application's last words at the collector", FORWARDED, || {
        let lines = collector::lines_of(&id);
        lines.iter().any(|line| line.contains(LAST)).then_some(lines)
    });
    assert_eq!(server.logs(&id).lines().collect::<Vec<_>>(), lines);
    let group = format!("/from/{}{}", server.variable("AWS_ACCOUNT_ID"), cloudwatch::group("probe"));
    let find = ["logs", "filter-log-events", "--log-group-name", &group, "--filter-pattern"];
    let pattern = format!("\"{LAST}\"");
    until("the same at the other server", FORWARDED, || {
        let groups = there.aws(&["logs", "describe-log-groups", "--log-group-name-prefix", &group]);
        let is_made = !groups["logGroups"].as_array().unwrap().is_empty();
        let found = is_made.then(|| there.aws(&[&find[..], &[&pattern]].concat()))?;
        let streams = found["events"].as_array().unwrap().iter().map(|event| event["logStreamName"].clone());
        streams.into_iter().any(|stream| stream.as_str().unwrap().ends_with(&id)).then_some(())
    });
    server.restart_with(&["--config", fixture::SETTINGS]);
}

/// The suite's settings, and with them where logs go.
fn forwarding_to(there: &Server) -> NamedTempFile {
    let mut settings = NamedTempFile::new().unwrap();
    let suite = std::fs::read_to_string(fixture::SETTINGS).unwrap();
    let [url, id, secret, region] =
        ["AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"]
            .map(|name| there.variable(name));
    let text = format!(
        r#"
        {suite}
        [logs.otlp]
        endpoint = "{}/v1/logs"
        [logs.cloudwatch]
        endpoint = "{url}"
        region = "{region}"
        access_key_id = "{id}"
        secret_access_key = "{secret}"
        group_prefix = "/from/{{account}}"
        "#,
        collector::url()
    );
    settings.write_all(text.as_bytes()).unwrap();
    settings
}
