//! What a MicroVM has used. AWS tells it in a bill alone.

use api::endpoints::*;
use ids::AccountId;
use node::baseline;

use super::Operations;
use super::failure::Failure;

const NANOS_PER_MILLI: u64 = 1_000_000;
/// Byte milliseconds of a MiB second.
const PER_MIB_SECOND: u64 = 1000 << 20;

impl Operations {
    pub(super) async fn get_usage(
        &self,
        account: AccountId,
        request: GetMicrovmUsageRequest,
    ) -> Result<MicrovmUsage, Failure> {
        let record = self.known_microvm(&account, request.microvm_id()?)?;
        let used = self.node.usage(record.id)?;
        let baseline = baseline(record.memory_mib);
        let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        Ok(MicrovmUsage {
            microvm_id: record.id.to_string(),
            baseline_cpu_millis: whole(baseline.cpu_millis),
            baseline_memory_mebibytes: whole(baseline.memory_bytes >> 20),
            running_milliseconds: whole(used.running_millis),
            suspended_milliseconds: whole(used.suspended_millis),
            cpu_milliseconds: whole(used.cpu_nanos / NANOS_PER_MILLI),
            cpu_milliseconds_above_baseline: whole(used.cpu_above_nanos / NANOS_PER_MILLI),
            memory_mebibyte_seconds: whole(used.memory_byte_millis / PER_MIB_SECOND),
            memory_mebibyte_seconds_above_baseline: whole(used.memory_above_byte_millis / PER_MIB_SECOND),
            suspended_mebibyte_seconds: whole(used.saved_byte_millis / PER_MIB_SECOND),
        })
    }
}
