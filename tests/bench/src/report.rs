//! All that was measured, and on what: `docs/performance.md` tells the shape of its JSON.

use std::fs;
use std::path::Path;
use std::process::Command;

use e2e::proc::{kibibytes, value};
use engine::accelerator::Accelerator;
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::Failure;
use crate::calls::Operation;
use crate::endpoint::Comparison;
use crate::scale::Axis;
use crate::table::Table;
use crate::vmm;

/// Raised with every change of the shape that a reader would notice.
const FORMAT: u32 = 1;

/// What was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    format: u32,
    /// When it began.
    date: String,
    /// What was built, with `-dirty` where it had been changed since; nothing outside of a repository.
    commit: Option<String>,
    machine: Machine,
    /// How often each figure was asked for.
    samples: u16,
    tables: Vec<Table>,
    calls: Vec<Operation>,
    scale: Vec<Axis>,
    endpoint: Vec<Comparison>,
}

/// What it was measured on.
#[derive(Debug, Serialize)]
struct Machine {
    cores: usize,
    processor: Option<String>,
    memory_bytes: Option<u64>,
    kernel: Option<String>,
    /// With `vmm`, nothing where no VMM starts.
    accelerator: Option<Accelerator>,
    vmm: Option<String>,
}

impl Report {
    /// Of nothing yet.
    pub(crate) fn new(samples: u16) -> Result<Self, Failure> {
        Ok(Self {
            format: FORMAT,
            date: OffsetDateTime::now_utc().format(&Rfc3339)?,
            commit: commit(),
            machine: Machine::this()?,
            samples,
            tables: vec![],
            calls: vec![],
            scale: vec![],
            endpoint: vec![],
        })
    }

    /// Takes a table, and prints it at once.
    pub(crate) fn table(&mut self, table: Table) {
        println!("{table}");
        self.tables.push(table);
    }

    /// Takes how many calls were answered, and prints it.
    pub(crate) fn calls(&mut self, operations: Vec<Operation>) {
        println!("{}", crate::calls::Lines(&operations));
        self.calls.extend(operations);
    }

    /// Takes an axis, and prints it.
    pub(crate) fn axis(&mut self, axis: Axis) {
        println!("{}", axis.table());
        self.scale.push(axis);
    }

    /// Takes how the endpoints do beside others, and prints it.
    pub(crate) fn endpoint(&mut self, measured: Vec<Comparison>) {
        println!("{}", crate::endpoint::Lines(&measured));
        self.endpoint.extend(measured);
    }

    pub(crate) fn write(&self, path: &Path) -> Result<(), Failure> {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        fs::write(path, serde_json::to_string_pretty(self)? + "\n")?;
        println!("written to {}", path.display());
        Ok(())
    }
}

impl Machine {
    fn this() -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let vmm = runtime.block_on(vmm::compatibility()).ok();
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        Ok(Self {
            cores: std::thread::available_parallelism()?.get(),
            processor: value(&cpuinfo, "model name").map(str::to_owned),
            memory_bytes: kibibytes(&meminfo, "MemTotal"),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease").ok().map(|text| text.trim().to_owned()),
            accelerator: vmm.as_ref().map(|vmm| vmm.accelerator),
            vmm: vmm.map(|vmm| vmm.engine.to_string()),
        })
    }
}

fn commit() -> Option<String> {
    let arguments = ["describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"];
    let output = Command::new("git").args(arguments).current_dir(e2e::command::workspace()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
