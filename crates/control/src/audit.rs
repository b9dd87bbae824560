//! The audit log: one line of JSON for every call that was made, with CloudTrail's names (SPEC §8).
//!
//! `<dir>/YYYY-MM-DD.jsonl`, by the UTC day. A thread writes; calls wait for it only where it cannot keep up, so that
//! no line is dropped. What comes close together is written at once: a line is in its file some milliseconds after the
//! call.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use api::Operation;
use http::HeaderMap;
use http::header::USER_AGENT;
use identity::Caller;
use ids::AccountId;
use serde::Serialize;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use time::{Date, OffsetDateTime};
use tokio::sync::mpsc;
use uuid::Uuid;

/// Lines that wait to be written before calls wait.
const QUEUE: usize = 4096;
/// Rest of the writer after what it wrote: lines that come meanwhile are written together and wake it once.
const PAUSE: Duration = Duration::from_millis(5);
/// Bytes of a line, as most are.
const LINE_BYTES: usize = 1024;
/// Bytes that are written at once.
const BUFFER: usize = 64 * 1024;
/// For its owner alone: it tells who did what.
const MODE: u32 = 0o600;
const TIME: &[BorrowedFormatItem<'_>] = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");
const DAY: &[BorrowedFormatItem<'_>] = format_description!("[year]-[month]-[day]");
/// Of the records' format, as CloudTrail counts.
const EVENT_VERSION: &str = "1.11";

/// What a line tells of.
#[derive(Debug)]
pub struct Event<'a> {
    /// Host name of the service called, for example `lambda.amazonaws.com`.
    pub source: &'static str,
    /// The operation called.
    pub name: &'a str,
    /// Who called.
    pub caller: &'a Caller,
    /// From where.
    pub peer: Option<IpAddr>,
    /// With which client.
    pub user_agent: Option<&'a str>,
    /// ARNs of what the call was about.
    pub resources: &'a [String],
    /// Name and message of the error, if it failed.
    pub error: Option<(&'a str, &'a str)>,
    /// The answer's `x-amzn-requestid`.
    pub request_id: &'a str,
    /// What nothing was changed by.
    pub read_only: bool,
    /// Whether it is about what runs rather than about how that is managed (CloudTrail's data events).
    pub data: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    event_version: &'static str,
    user_identity: UserIdentity<'a>,
    event_time: String,
    event_source: &'static str,
    event_name: &'a str,
    aws_region: &'a str,
    #[serde(rename = "sourceIPAddress", skip_serializing_if = "Option::is_none")]
    source_ip_address: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_code: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_message: Option<&'a str>,
    #[serde(rename = "requestID")]
    request_id: &'a str,
    #[serde(rename = "eventID")]
    event_id: Uuid,
    read_only: bool,
    event_type: &'static str,
    management_event: bool,
    event_category: &'static str,
    recipient_account_id: &'a AccountId,
    resources: Vec<Resource<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct UserIdentity<'a> {
    r#type: &'static str,
    principal_id: String,
    arn: String,
    account_id: &'a AccountId,
    access_key_id: &'a str,
}

#[derive(Serialize)]
struct Resource<'a> {
    #[serde(rename = "ARN")]
    arn: &'a str,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
}

/// The log; clones write to the same, and with the last of them goes its writer, once everything is written.
#[derive(Debug, Clone)]
pub struct Audit {
    region: String,
    log: Option<Arc<Log>>,
}

/// The moment of a call, and its line.
type Entry = (OffsetDateTime, Vec<u8>);

#[derive(Debug)]
struct Log {
    /// None: it is being closed.
    lines: Option<mpsc::Sender<Entry>>,
    writer: Option<JoinHandle<()>>,
}

impl Drop for Log {
    fn drop(&mut self) {
        self.lines = None;
        if let Some(Err(_)) = self.writer.take().map(JoinHandle::join) {
            tracing::error!("the audit log's writer panicked: lines are missing");
        }
    }
}

impl Audit {
    /// Into files in `dir`, which is made where there is none.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub fn to_dir(dir: &Path, region: &str) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let (lines, mut queue) = mpsc::channel::<Entry>(QUEUE);
        let mut writer = Writer { dir: dir.to_owned(), open: None };
        let writer = thread::spawn(move || {
            while let Some((at, line)) = queue.blocking_recv() {
                writer.write(at, &line);
                while let Ok((at, line)) = queue.try_recv() {
                    writer.write(at, &line);
                }
                writer.flush();
                thread::sleep(PAUSE);
            }
        });
        let log = Log { lines: Some(lines), writer: Some(writer) };
        Ok(Self { region: region.to_owned(), log: Some(Arc::new(log)) })
    }

    /// Nowhere.
    #[must_use]
    pub fn off() -> Self {
        Self { region: String::new(), log: None }
    }

    /// Notes an event.
    pub async fn note(&self, event: &Event<'_>) {
        let Some(lines) = self.log.as_ref().and_then(|log| log.lines.as_ref()) else { return };
        let now = OffsetDateTime::now_utc();
        // Texts and flags: nothing there fails to serialise, nor to be formatted.
        let mut line = Vec::with_capacity(LINE_BYTES);
        serde_json::to_writer(&mut line, &self.line(event, now)).unwrap_or_default();
        line.push(b'\n');
        if lines.send((now, line)).await.is_err() {
            tracing::error!("the audit log's writer is gone; restart the server");
        }
    }

    fn line<'a>(&'a self, event: &'a Event<'_>, now: OffsetDateTime) -> Line<'a> {
        let caller = event.caller;
        Line {
            event_version: EVENT_VERSION,
            user_identity: UserIdentity {
                r#type: caller.kind(),
                principal_id: caller.user_id(),
                arn: caller.arn(),
                account_id: &caller.account,
                access_key_id: &caller.access_key_id,
            },
            event_time: now.format(TIME).unwrap_or_default(),
            event_source: event.source,
            event_name: event.name,
            aws_region: &self.region,
            source_ip_address: event.peer,
            user_agent: event.user_agent,
            error_code: event.error.map(|(code, _)| code),
            error_message: event.error.map(|(_, message)| message),
            request_id: event.request_id,
            event_id: Uuid::new_v4(),
            read_only: event.read_only,
            event_type: "AwsApiCall",
            management_event: !event.data,
            event_category: if event.data { "Data" } else { "Management" },
            recipient_account_id: &caller.account,
            resources: event.resources.iter().map(|arn| Resource { arn, kind: kind(arn) }).collect(),
        }
    }
}

/// The client that a request names.
#[must_use]
pub fn user_agent(headers: &HeaderMap) -> Option<&str> {
    headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok())
}

/// CloudTrail's data events of MicroVMs (SPEC §8).
#[must_use]
pub fn is_data(operation: Operation) -> bool {
    matches!(
        operation,
        Operation::RunMicrovm
            | Operation::TerminateMicrovm
            | Operation::SuspendMicrovm
            | Operation::ResumeMicrovm
            | Operation::CreateMicrovmAuthToken
            | Operation::CreateMicrovmShellAuthToken
    )
}

fn kind(arn: &str) -> Option<&'static str> {
    if arn.contains(":microvm-image:") {
        return Some("AWS::Lambda::MicrovmImage");
    }
    arn.contains(":network-connector:").then_some("AWS::Lambda::NetworkConnector")
}

struct Writer {
    dir: PathBuf,
    open: Option<(Date, BufWriter<File>)>,
}

impl Writer {
    fn write(&mut self, at: OffsetDateTime, line: &[u8]) {
        let written = self.file(at.date()).and_then(|file| file.write_all(line));
        self.report(written);
    }

    fn flush(&mut self) {
        let flushed = self.open.as_mut().map_or(Ok(()), |(_, file)| file.flush());
        self.report(flushed);
    }

    fn file(&mut self, day: Date) -> io::Result<&mut BufWriter<File>> {
        if self.open.as_ref().is_none_or(|(open, _)| *open != day) {
            self.flush();
            let name = day.format(DAY).map_err(io::Error::other)?;
            let path = self.dir.join(format!("{name}.jsonl"));
            let file = OpenOptions::new().append(true).create(true).mode(MODE).open(path)?;
            self.open = Some((day, BufWriter::with_capacity(BUFFER, file)));
        }
        self.open.as_mut().map(|(_, file)| file).ok_or_else(|| io::Error::other("no file"))
    }

    /// A call has been carried out by then and cannot be taken back; the operator has to know.
    fn report(&mut self, result: io::Result<()>) {
        if let Err(error) = result {
            tracing::error!(%error, dir = %self.dir.display(), "the audit log cannot be written; free some space");
            self.open = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use identity::Principal;
    use serde_json::Value;

    use super::*;

    #[test]
    fn a_line_has_cloudtrails_names() {
        let user = Principal::User { id: "AIDA1".into(), path: "/".into(), name: "ada".into() };
        let account = "123456789012".parse().unwrap();
        let caller = Caller { account, principal: user, access_key_id: "AKIA1".into(), session: None };
        let resources = ["arn:aws:lambda:us-east-1:123456789012:microvm-image:a".to_owned()];
        let event = Event {
            source: "lambda.amazonaws.com",
            name: "RunMicrovm",
            caller: &caller,
            peer: Some([127, 0, 0, 1].into()),
            user_agent: Some("aws-cli/2"),
            resources: &resources,
            error: Some(("AccessDeniedException", "no")),
            request_id: "r",
            read_only: false,
            data: true,
        };
        let audit = Audit { region: "us-east-1".into(), log: None };
        let at = OffsetDateTime::from_unix_timestamp(1_727_000_000).unwrap();
        let mut line = serde_json::to_value(audit.line(&event, at)).unwrap();
        assert!(line["eventID"].as_str().is_some_and(|id| id.len() == 36));
        line["eventID"] = Value::Null;
        assert_eq!(
            line,
            serde_json::json!({
                "eventVersion": "1.11",
                "userIdentity": {
                    "type": "IAMUser", "principalId": "AIDA1", "arn": "arn:aws:iam::123456789012:user/ada",
                    "accountId": "123456789012", "accessKeyId": "AKIA1",
                },
                "eventTime": "2024-09-22T10:13:20Z",
                "eventSource": "lambda.amazonaws.com",
                "eventName": "RunMicrovm",
                "awsRegion": "us-east-1",
                "sourceIPAddress": "127.0.0.1",
                "userAgent": "aws-cli/2",
                "errorCode": "AccessDeniedException",
                "errorMessage": "no",
                "requestID": "r",
                "eventID": null,
                "readOnly": false,
                "eventType": "AwsApiCall",
                "managementEvent": false,
                "eventCategory": "Data",
                "recipientAccountId": "123456789012",
                "resources": [{"ARN": resources[0], "type": "AWS::Lambda::MicrovmImage"}],
            })
        );
    }

    #[tokio::test]
    async fn no_line_is_lost_at_the_end() {
        const CALLS: usize = 2 * QUEUE;
        let dir = tempfile::tempdir().unwrap();
        let audit = Audit::to_dir(dir.path(), "us-east-1").unwrap();
        let account = "123456789012".parse().unwrap();
        let root =
            Caller { account, principal: Principal::Root, access_key_id: "AKIA1".into(), session: None };
        let event = Event {
            source: "lambda.amazonaws.com",
            name: "GetMicrovm",
            caller: &root,
            peer: None,
            user_agent: None,
            resources: &[],
            error: None,
            request_id: "r",
            read_only: true,
            data: false,
        };
        for _ in 0..CALLS {
            audit.note(&event).await;
        }
        drop(audit);
        let files = fs::read_dir(dir.path()).unwrap();
        let text: String = files.map(|file| fs::read_to_string(file.unwrap().path()).unwrap()).collect();
        assert_eq!(text.lines().filter(|line| line.ends_with('}')).count(), CALLS);
    }

    #[test]
    fn each_day_has_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Writer { dir: dir.path().to_owned(), open: None };
        let first = OffsetDateTime::from_unix_timestamp(1_727_000_000).unwrap();
        for (at, line) in [(first, "a\n"), (first, "b\n"), (first + time::Duration::DAY, "c\n")] {
            writer.write(at, line.as_bytes());
        }
        writer.flush();
        let read = |day: &str| fs::read_to_string(dir.path().join(day)).unwrap();
        assert_eq!((read("2024-09-22.jsonl"), read("2024-09-23.jsonl")), ("a\nb\n".into(), "c\n".into()));
    }
}
