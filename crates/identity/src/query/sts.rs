//! Sessions: every operation of STS that is answered here.

use crate::query::call::{Call, Handler};
use crate::query::error::Refusal;

/// What carries an action out.
pub(crate) fn handler(action: &str) -> Option<Handler> {
    Some(match action {
        "GetCallerIdentity" => caller_identity,
        _ => return None,
    })
}

/// Allowed to everybody.
fn caller_identity(call: &mut Call<'_>) -> Result<(), Refusal> {
    call.answer.text("UserId", &call.caller.user_id());
    call.answer.text("Account", &call.caller.account.to_string());
    call.answer.text("Arn", &call.caller.arn());
    Ok(())
}
