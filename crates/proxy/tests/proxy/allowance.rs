//! What one MicroVM may have of its endpoint, as its clients see it.

use std::time::{Duration, Instant};

use crate::world::{App, World, channel, empty};
use bytes::Bytes;
use http::StatusCode;
use http_body_util::{BodyExt, Full};
use rekindle_proxy::Allowance;

async fn within(app: App, allowance: Allowance) -> World {
    let world = World::start(app).await;
    world.allow(allowance);
    world
}

#[tokio::test]
async fn more_requests_in_a_second_than_allowed_are_told_to_come_again() {
    let hourly = 1.0 / 3600.0;
    let world =
        within(App::Echo, Allowance { requests_per_second: Some(hourly), ..Allowance::default() }).await;
    let mut client = world.connect(true).await;
    let answer = client.send(world.request("/").body(empty()).unwrap()).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let refused = client.send(world.request("/").body(empty()).unwrap()).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.headers()["retry-after"], "1");
    // A client that may not ask at all learns nothing of it.
    let uri = format!("https://{}/", world.host());
    let stranger = client.send(http::Request::post(uri).body(empty()).unwrap()).await;
    assert_eq!(stranger.status(), StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_request_beyond_those_open_is_refused_until_one_ends() {
    let world = within(App::Mirror, Allowance { open_requests: Some(1), ..Allowance::default() }).await;
    let mut client = world.connect(true).await;
    let (sender, body) = channel();
    let open = client.send(world.request("/").body(body).unwrap()).await;
    assert_eq!(open.status(), StatusCode::OK);
    let refused = client.send(world.request("/").body(empty()).unwrap()).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    drop(sender);
    open.into_body().collect().await.unwrap();
    world.until_idle().await;
    assert_eq!(client.send(world.request("/").body(empty()).unwrap()).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn bytes_beyond_the_allowance_wait_and_none_is_lost() {
    const BYTES: usize = 200_000;
    let limits = Allowance { bytes_per_second: Some(400_000.0), ..Allowance::default() };
    let world = within(App::Mirror, limits).await;
    let mut client = world.connect(true).await;
    let sent = Bytes::from_iter((0..BYTES).map(|at| (at % 251) as u8));
    let began = Instant::now();
    let body = Full::new(sent.clone()).boxed();
    let answer = client.send(world.request("/").body(body).unwrap()).await;
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), sent);
    // Both ways together take a second; a quarter of one may be spent ahead, and the last read is not waited for.
    assert!(began.elapsed() >= Duration::from_millis(500), "{:?}", began.elapsed());
}
