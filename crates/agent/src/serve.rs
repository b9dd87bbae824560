//! Serving the host: one session after another, one task per request.

use std::sync::Arc;

use agent_proto::guest::{Call, Calls, Host, Incoming, accept};
use agent_proto::{Event, Request, Response};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, mpsc, watch};

use crate::app::App;
use crate::error::{Error, trying};
use crate::port::Port;
use crate::{boot, builder, dns, hook, life};

/// Events kept while no host listens; more hold their writers back.
const EVENT_BACKLOG: usize = 64;

/// What outlives a session.
struct Guest {
    app: Mutex<Option<App>>,
    events: mpsc::Sender<Event>,
}

/// Whether the session goes on after a request.
enum After {
    Serve,
    EndSession,
}

/// Serves hosts until the machine fails.
pub(crate) async fn serve() -> Result<(), Error> {
    let port = Port::open()?;
    let (events, mut backlog) = mpsc::channel(EVENT_BACKLOG);
    let guest = Arc::new(Guest { app: Mutex::new(None), events });
    let (sessions, current) = watch::channel(None);
    dns::serve(&current).await?;
    loop {
        match accept(port.clone()).await {
            Ok((host, calls)) => {
                sessions.send_replace(Some(host.clone()));
                tokio::select! {
                    () = answer_calls(calls, &guest) => {}
                    () = tell_events(&host, &mut backlog) => {}
                    () = host.ended() => {}
                }
                sessions.send_replace(None);
            }
            // The host is away: nothing to read until the port changes.
            Err(_) => port.changed().await.map_err(trying("waiting for a host"))?,
        }
    }
}

async fn tell_events(host: &Host, backlog: &mut mpsc::Receiver<Event>) {
    let Ok(mut sink) = host.events().await else { return };
    while let Some(event) = backlog.recv().await {
        if sink.send(&event).await.is_err() {
            return;
        }
    }
}

async fn answer_calls(mut calls: Calls, guest: &Arc<Guest>) {
    let (end, mut ended) = mpsc::channel(1);
    loop {
        tokio::select! {
            incoming = calls.next() => {
                let Some(incoming) = incoming else { return };
                let (guest, end) = (Arc::clone(guest), end.clone());
                tokio::spawn(async move {
                    if matches!(answer(incoming, &guest).await, After::EndSession) {
                        // A second wish to end the session changes nothing.
                        let _ = end.try_send(());
                    }
                });
            }
            _ = ended.recv() => return,
        }
    }
}

async fn answer(incoming: Incoming, guest: &Guest) -> After {
    // A call that is cut short has nobody to answer to.
    let Ok(Some(call)) = incoming.request().await else { return After::Serve };
    let after = match call.request {
        Request::Freeze => After::EndSession,
        _ => After::Serve,
    };
    if let Request::Relay { port } = call.request {
        relay(call, port).await;
        return after;
    }
    let shutdown = matches!(call.request, Request::Shutdown);
    let response = carry_out(&call.request, guest).await.unwrap_or_else(|error| failed(&error));
    let refused = matches!(response, Response::Failed { .. });
    // Where the answer cannot be written the session is over, and the host asks again in the next.
    let _ = call.answer(&response).await;
    if shutdown {
        boot::power_off();
    }
    if refused { After::Serve } else { after }
}

async fn carry_out(request: &Request, guest: &Guest) -> Result<Response, Error> {
    match request {
        Request::Hook(call) => return Ok(Response::Hook(hook::call(call).await)),
        Request::StartApp(spec) => {
            let mut app = guest.app.lock().await;
            if app.is_some() {
                return Err(Error::new("starting the application", "it has been started already"));
            }
            *app = Some(App::start(spec, &guest.events)?);
        }
        Request::Freeze => {
            if let Some(app) = guest.app.lock().await.as_ref() {
                app.freeze().await?;
            }
            life::quiesce()?;
        }
        Request::BeginLife(new) => life::begin(new)?,
        Request::Thaw => {
            if let Some(app) = guest.app.lock().await.as_ref() {
                app.thaw().await?;
            }
        }
        Request::Build(spec) => return Ok(Response::Build(builder::build(spec, &guest.events).await)),
        Request::Shutdown | Request::Relay { .. } => {}
    }
    Ok(Response::Done)
}

fn failed(error: &Error) -> Response {
    Response::Failed { message: error.to_string() }
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
