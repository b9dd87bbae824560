//! Asking a hook of the build until it answers for good, and not longer than its time.

use std::time::Duration;

use agent_proto::HookCall;
use agent_proto::host::Channel;
use guest::Guest;
use guest::hooks::{self, Readiness};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::error::BuildError;

/// Between two questions: the application says "not yet", or does not listen yet.
const ASK_AGAIN: Duration = Duration::from_millis(200);
/// Without `/ready`, how long the application may take to listen before it is snapshotted as it is.
const LISTEN_TIME: Duration = Duration::from_secs(20);
/// Where an application is reached unless the client says otherwise (SPEC §5.3).
const APP_PORT: u16 = 8080;

/// A hook of the build.
pub(crate) struct BuildHook {
    /// Last part of its path.
    pub(crate) path: &'static str,
    /// As messages write it.
    pub(crate) title: &'static str,
    pub(crate) port: u16,
    pub(crate) seconds: u32,
}

/// Asks until 200; fails with the first other answer but 503, or when the time is over (SPEC §3).
pub(crate) async fn until_ready(guest: &Guest, hook: &BuildHook) -> Result<(), BuildError> {
    let deadline = Instant::now() + Duration::from_secs(hook.seconds.into());
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        if timeout_ms == 0 {
            return Err(BuildError::Application(hooks::timed_out(hook.title, hook.seconds)));
        }
        let call = HookCall { hook: hook.path.to_owned(), port: hook.port, timeout_ms, body: None };
        match hooks::readiness(hook.title, &guest.hook(call).await?) {
            Readiness::Ready => return Ok(()),
            Readiness::NotYet => sleep(ASK_AGAIN.min(left)).await,
            Readiness::Failed(why) => return Err(BuildError::Application(why)),
        }
    }
}

/// For an application without `/ready`: until it listens on its port, or has had time enough to do so elsewhere.
pub(crate) async fn until_listening(channel: &Channel) {
    let listens = async {
        while channel.relay(APP_PORT).await.is_err() {
            sleep(ASK_AGAIN).await;
        }
    };
    // A guest that does not even answer is found out when it is to be frozen.
    let _ = timeout(LISTEN_TIME, listens).await;
}

/// Ends with the failure that an application is which exits before its snapshot.
pub(crate) async fn exit(exited: &mut watch::Receiver<Option<i32>>) -> BuildError {
    let ended = exited.wait_for(Option::is_some).await.map(|code| code.unwrap_or_default());
    match ended {
        Ok(code) => BuildError::Application(format!(
            "Failed to start container: the application exited with code {code} before it was ready"
        )),
        // The session ended first: whoever uses it will say so.
        Err(_) => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use agent_proto::host::Answers;
    use agent_proto::{Request, Response, guest};
    use tokio::io::duplex;

    use super::*;

    /// A session with an agent that answers a relay as `serve` does.
    async fn session<F: Future<Output = ()> + Send + 'static>(
        serve: impl Fn(guest::Call) -> F + Send + 'static,
    ) -> Channel {
        let (ours, theirs) = duplex(4096);
        tokio::spawn(async move {
            let (_host, mut calls) = guest::accept(theirs).await.unwrap();
            while let Some(incoming) = calls.next().await {
                let call = incoming.request().await.unwrap().unwrap();
                assert_eq!(call.request, Request::Relay { port: APP_PORT });
                tokio::spawn(serve(call));
            }
        });
        Channel::establish(ours, Answers::none()).await.unwrap().0
    }

    async fn waited(channel: Channel) -> Duration {
        let begun = Instant::now();
        until_listening(&channel).await;
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn an_application_without_ready_gets_its_time_to_listen_and_no_more() {
        let listens = session(|call| async { drop(call.into_relay().await) }).await;
        assert!(waited(listens).await < ASK_AGAIN);
        let refused = || Response::Failed { message: "refused".to_owned() };
        let elsewhere = session(move |call| async move { drop(call.answer(&refused()).await) }).await;
        assert!((LISTEN_TIME..LISTEN_TIME + ASK_AGAIN).contains(&waited(elsewhere).await));
        let silent = session(|call| async move {
            let _kept = call;
            std::future::pending::<()>().await;
        });
        assert!((LISTEN_TIME..LISTEN_TIME + ASK_AGAIN).contains(&waited(silent.await).await));
    }
}
