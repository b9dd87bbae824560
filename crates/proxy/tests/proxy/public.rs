//! What is reached without a token: public ports, by the endpoint's name and by names of the operator's own.

use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;

use crate::world::{App, Client, DOMAIN, World, empty};

async fn status(client: &mut Client, host: &str, headers: &[(&str, &str)]) -> (StatusCode, String) {
    let mut request = Request::get(format!("https://{host}/"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = client.send(request.body(empty()).unwrap()).await;
    let (status, body) = (response.status(), response.into_body().collect().await.unwrap().to_bytes());
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn a_public_port_needs_no_token_and_the_others_do() {
    let world = World::start(App::Echo).await;
    let host = world.host();
    let mut client = world.connect(true).await;
    let closed = status(&mut client, &host, &[]).await;
    assert_eq!(closed.0, StatusCode::FORBIDDEN);
    assert_eq!(world.wakes(), 0);
    world.publish(&[3000, 8081]);
    // A browser names no port, and gets the first that is public.
    assert_eq!((status(&mut client, &host, &[]).await.0, world.port()), (StatusCode::OK, 3000));
    let named = status(&mut client, &host, &[("x-aws-proxy-port", "8081")]).await;
    assert_eq!((named.0, world.port()), (StatusCode::OK, 8081));
    world.publish(&[3000, 8080]);
    assert_eq!((status(&mut client, &host, &[]).await.0, world.port()), (StatusCode::OK, 8080));

    let wakes = world.wakes();
    let other = status(&mut client, &host, &[("x-aws-proxy-port", "9000")]).await;
    assert_eq!(other, closed, "a port that is not public shows nothing");
    let wrong = status(&mut client, &host, &[("x-aws-proxy-auth", "nonsense")]).await;
    assert_eq!(wrong, closed, "a token that is shown must be good");
    let tunnel = Request::connect("localhost:8080").header("host", "localhost:8080").body(empty()).unwrap();
    assert_eq!(world.connect(false).await.send(tunnel).await.status(), StatusCode::FORBIDDEN);
    assert_eq!(world.wakes(), wakes);
    world.publish(&[]);
    assert_eq!(status(&mut client, &host, &[]).await, closed);
}

#[tokio::test]
async fn a_name_of_the_operators_own_leads_to_the_microvm_in_every_way() {
    let world = World::start(App::Echo).await;
    for h2 in [false, true] {
        let mut client = world.connect_to(DOMAIN, h2).await;
        world.publish(&[]);
        assert_eq!(status(&mut client, DOMAIN, &[]).await.0, StatusCode::FORBIDDEN);
        let token = world.token();
        let seen = status(&mut client, "APP.test", &[("x-aws-proxy-auth", &token)]).await;
        assert_eq!(seen.0, StatusCode::OK);
        assert!(seen.1.to_lowercase().contains("host: app.test"), "{}", seen.1);
        world.publish(&[8080]);
        assert_eq!(status(&mut client, DOMAIN, &[]).await.0, StatusCode::OK);
        // One connection, one site.
        assert_eq!(status(&mut client, &world.host(), &[]).await.0, StatusCode::MISDIRECTED_REQUEST);
        let mut endpoint = world.connect(h2).await;
        assert_eq!(status(&mut endpoint, DOMAIN, &[]).await.0, StatusCode::MISDIRECTED_REQUEST);
        assert_eq!(status(&mut endpoint, "other.test", &[]).await.0, StatusCode::FORBIDDEN);
    }
}

#[tokio::test]
async fn a_public_websocket_needs_no_token_and_a_shell_does() {
    let world = World::start(App::Echo).await;
    world.publish(&[8080]);
    for (offer, expected) in
        [("chat", StatusCode::SWITCHING_PROTOCOLS), ("lambda-microvms.tcp", StatusCode::FORBIDDEN)]
    {
        let request = Request::builder()
            .method(Method::GET)
            .uri(format!("https://{}/shell", world.host()))
            .header("connection", "upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
            .header("sec-websocket-protocol", offer);
        let response = world.connect(false).await.send(request.body(empty()).unwrap()).await;
        assert_eq!(response.status(), expected, "{offer}");
        // It reached the application, whatever it is called.
        assert_eq!(response.headers().contains_key("x-seen"), expected == StatusCode::SWITCHING_PROTOCOLS);
    }
}
