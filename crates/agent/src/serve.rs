//! Serving the host: one session after another, one task per request.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use agent_proto::guest::{Call, Calls, Host, Incoming};
use agent_proto::{Event, Request, Response};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, mpsc, watch};

use crate::app::App;
use crate::door::Door;
use crate::error::Error;
use crate::life::{self, Random};
use crate::output::Output;
use crate::shell::{self, Admission};
use crate::{builder, dns, hook, metadata, oom};

/// Events kept while no host listens; more hold their writers back.
const EVENT_BACKLOG: usize = 64;
/// For a host to take what was printed before a freeze; what it has not taken then is told in the next life.
const FLUSH_WITHIN: Duration = Duration::from_secs(5);

/// What outlives a session.
struct Guest {
    random: Random,
    app: Mutex<Option<App>>,
    shells: Admission,
    metadata: metadata::Service,
    output: Arc<Output>,
}

impl Guest {
    /// Flushes the output, for an answer.
    async fn flushed(&self) -> Response {
        Response::Flushed { mark: self.output.flush().await }
    }
}

/// What follows a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    Serve,
    EndSession,
    PowerOff,
}

/// Serves hosts until one has the machine powered off, or the machine fails. `listener`: where programs ask for
/// metadata.
pub(crate) async fn serve(listener: TcpListener) -> Result<(), Error> {
    let door = Door::open()?;
    let (events, receiver) = mpsc::channel(EVENT_BACKLOG);
    let (marks, told) = watch::channel(0);
    let mut untold = Untold { receiver, next: None, exit: None, marks };
    let (sessions, current) = watch::channel(None);
    dns::serve(&current).await?;
    let output = Arc::new(Output::new(events, told));
    oom::watch(Arc::clone(&output))?;
    let guest = Arc::new(Guest {
        random: Random::open()?,
        app: Mutex::new(None),
        shells: Admission::new(),
        metadata: metadata::Service::start(listener, current)?,
        output,
    });
    loop {
        let (host, calls) = door.session().await?;
        sessions.send_replace(Some(host.clone()));
        let after = serve_session(&host, calls, &guest, &mut untold).await;
        sessions.send_replace(None);
        host.close().await;
        if after == After::PowerOff {
            return Ok(());
        }
    }
}

async fn serve_session(host: &Host, calls: Calls, guest: &Arc<Guest>, untold: &mut Untold) -> After {
    tokio::select! {
        after = answer_calls(calls, guest) => after,
        () = tell_events(host, untold) => After::EndSession,
        () = host.ended() => After::EndSession,
    }
}

/// What the next session starts by telling.
struct Untold {
    receiver: mpsc::Receiver<Event>,
    /// Taken from the queue, and kept until it has been sent.
    next: Option<Event>,
    /// The application's end: told in every session, because the host may have forgotten it.
    exit: Option<Event>,
    /// The last mark that was told.
    marks: watch::Sender<u64>,
}

async fn tell_events(host: &Host, untold: &mut Untold) {
    let Ok(mut sink) = host.events().await else {
        return;
    };
    if let Some(exit) = &untold.exit
        && sink.send(exit).await.is_err()
    {
        return;
    }
    loop {
        if untold.next.is_none() {
            untold.next = untold.receiver.recv().await;
        }
        let Some(event) = &untold.next else { return };
        if sink.send(event).await.is_err() {
            return;
        }
        match untold.next.take() {
            told @ Some(Event::AppExited { .. }) => untold.exit = told,
            Some(Event::Flushed { mark }) => drop(untold.marks.send_replace(mark)),
            Some(Event::Log { .. }) | None => {}
        }
    }
}

async fn answer_calls(mut calls: Calls, guest: &Arc<Guest>) -> After {
    let (end, mut ended) = mpsc::channel(1);
    loop {
        tokio::select! {
            incoming = calls.next() => {
                let Some(incoming) = incoming else { return After::EndSession };
                let (guest, end) = (Arc::clone(guest), end.clone());
                tokio::spawn(async move {
                    let after = answer(incoming, &guest).await;
                    if after != After::Serve {
                        // A second wish to end the session changes nothing.
                        let _ = end.try_send(after);
                    }
                });
            }
            Some(after) = ended.recv() => return after,
        }
    }
}

async fn answer(incoming: Incoming, guest: &Guest) -> After {
    // A call that is cut short has nobody to answer to.
    let Ok(Some(call)) = incoming.request().await else {
        return After::Serve;
    };
    if let Request::Relay { port } = call.request {
        relay(call, port).await;
        return After::Serve;
    }
    if call.request == Request::Shell {
        let container = guest.app.lock().await.as_ref().map(|app| app.container().clone());
        shell::serve(call, container, &guest.shells).await;
        return After::Serve;
    }
    let (response, after) = match carry_out(&call.request, guest).await {
        Ok(response) => (response, what_follows(&call.request)),
        Err(error) => (Response::Failed { message: error.to_string() }, After::Serve),
    };
    // Where the answer cannot be written the session is over, and the host asks again in the next.
    let _ = call.answer(&response).await;
    after
}

fn what_follows(request: &Request) -> After {
    match request {
        Request::Freeze => After::EndSession,
        Request::Shutdown => After::PowerOff,
        _ => After::Serve,
    }
}

async fn carry_out(request: &Request, guest: &Guest) -> Result<Response, Error> {
    match request {
        Request::Hook(call) => return Ok(Response::Hook(hook::call(call).await)),
        Request::StartApp(spec) => {
            let mut app = guest.app.lock().await;
            if app.is_some() {
                return Err(Error::new("starting the application", "it has been started already"));
            }
            *app = Some(App::start(spec, &guest.output)?);
        }
        Request::Freeze => {
            // A terminal survives no freeze, and what was started in it is not the application's.
            guest.shells.close().await;
            if let Some(app) = guest.app.lock().await.as_ref() {
                app.freeze().await?;
            }
            // What is told only in the next life is told by every clone.
            let _ = tokio::time::timeout(FLUSH_WITHIN, guest.output.flush_to_host()).await;
            life::quiesce()?;
        }
        Request::Live(new) => {
            life::begin(new, &guest.random)?;
            if new.machine_id.is_some() {
                guest.metadata.forget();
            }
            if let Some(app) = guest.app.lock().await.as_ref() {
                app.thaw(new.machine_id.as_deref())?;
            }
            guest.shells.open();
            if let Some(call) = &new.hook {
                return Ok(Response::Hook(hook::call(call).await));
            }
        }
        Request::Stop { within_ms } => {
            // Not waited for with the lock held: a freeze may come.
            let container = guest.app.lock().await.as_ref().map(|app| app.container().clone());
            if let Some(container) = container {
                container.stop(Duration::from_millis(*within_ms)).await?;
            }
            return Ok(guest.flushed().await);
        }
        Request::Flush => return Ok(guest.flushed().await),
        Request::Build(spec) => return Ok(Response::Build(builder::build(spec, &guest.output).await)),
        Request::Shutdown | Request::Relay { .. } | Request::Shell => {}
    }
    Ok(Response::Done)
}

async fn relay(call: Call, port: u16) {
    match TcpStream::connect(("127.0.0.1", port)).await {
        Ok(mut app) => {
            // Without it small answers only wait; with it failing they still arrive.
            let _ = app.set_nodelay(true);
            if let Ok(mut stream) = call.into_relay().await {
                // A relay ends when either side is done, however that came about.
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut app).await;
            }
        }
        Err(error) => {
            let message = format!("connecting to port {port} of the application: {error}");
            let _ = call.answer(&Response::Failed { message }).await;
        }
    }
}
