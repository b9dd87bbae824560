//! `rekindle usage`: what MicroVMs have used.

use std::io::{self, Write};

use api::endpoints::MicrovmUsage;

use crate::cli;
use crate::client::{Client, ClientError};

/// Why nothing is shown.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UsageError {
    /// No server to ask, or it refuses.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Nowhere to print to.
    #[error("cannot print: {0}")]
    Print(#[from] io::Error),
}

/// Prints a line for each.
pub(crate) async fn run(args: &cli::Usage) -> Result<(), UsageError> {
    let client = Client::of(&args.whose.data.data_dir, args.whose.account.as_deref())?;
    let ids =
        if args.all { client.microvms().await? } else { args.ids.iter().map(ToString::to_string).collect() };
    let mut rows = vec![HEAD.map(str::to_owned)];
    for id in ids {
        rows.push(row(&client.usage(&id).await?));
    }
    let mut out = io::stdout().lock();
    for row in &rows {
        let [id, numbers @ ..] = row;
        write!(out, "{id:<44}")?;
        numbers.iter().try_for_each(|number| write!(out, " {number:>12}"))?;
        writeln!(out)?;
    }
    Ok(())
}

const HEAD: [&str; 7] =
    ["MICROVM", "RUNNING s", "ASLEEP s", "CPU s", "ABOVE s", "ABOVE MiB s", "ASLEEP MiB s"];

fn row(usage: &MicrovmUsage) -> [String; 7] {
    let seconds = |millis: i64| format!("{}.{}", millis / 1000, millis % 1000 / 100);
    [
        usage.microvm_id.clone(),
        seconds(usage.running_milliseconds),
        seconds(usage.suspended_milliseconds),
        seconds(usage.cpu_milliseconds),
        seconds(usage.cpu_milliseconds_above_baseline),
        usage.memory_mebibyte_seconds_above_baseline.to_string(),
        usage.suspended_mebibyte_seconds.to_string(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_have_one_place() {
        let usage = MicrovmUsage {
            microvm_id: "microvm-1".into(),
            baseline_cpu_millis: 250,
            baseline_memory_mebibytes: 512,
            running_milliseconds: 61_950,
            suspended_milliseconds: 0,
            cpu_milliseconds: 20_000,
            cpu_milliseconds_above_baseline: 99,
            memory_mebibyte_seconds: 5,
            memory_mebibyte_seconds_above_baseline: 4,
            suspended_mebibyte_seconds: 0,
        };
        assert_eq!(row(&usage), ["microvm-1", "61.9", "0.0", "20.0", "0.0", "4", "0"]);
    }
}
