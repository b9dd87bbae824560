//! Login links and the cookie that they set, as a browser has them.

use http::header::{CONTENT_SECURITY_POLICY, COOKIE, SET_COOKIE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use rekindle_proxy::login::PATH;

use crate::world::{App, Client, DOMAIN, World, empty};

async fn send(
    client: &mut Client,
    method: Method,
    url: String,
    headers: &[(&str, &str)],
) -> Response<Incoming> {
    let mut request = Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    client.send(request.body(empty()).unwrap()).await
}

async fn text(response: Response<Incoming>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

/// What the link's page does; the cookie as the browser sends it back.
async fn log_in(client: &mut Client, host: &str, token: &str) -> Option<String> {
    let url = format!("https://{host}{PATH}");
    let response = send(client, Method::POST, url, &[("x-aws-proxy-login", token)]).await;
    let cookie = response.headers().get(SET_COOKIE)?.to_str().unwrap().to_owned();
    assert_eq!(response.status(), StatusCode::NO_CONTENT);
    for part in ["; Path=/", "; Secure", "; HttpOnly", "; SameSite=Lax"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    assert!(!cookie.contains("Domain"), "{cookie}");
    Some(cookie.split(';').next().unwrap().to_owned())
}

#[tokio::test]
async fn a_login_lets_a_browser_in_and_the_application_sees_no_cookie_of_ours() {
    let world = World::start(App::Echo).await;
    for (host, h2) in [(world.host(), false), (world.host(), true), (DOMAIN.to_owned(), true)] {
        let mut client = world.connect_to(&host, h2).await;
        let cookie = log_in(&mut client, &host, &world.token()).await.unwrap();
        let sent = format!("theme=dark; {cookie}");
        let url = format!("https://{host}/page");
        let response = send(&mut client, Method::GET, url, &[("cookie", &sent)]).await;
        assert_eq!((response.status(), world.port()), (StatusCode::OK, 8080));
        let seen = text(response).await;
        assert!(seen.contains("cookie: theme=dark\n") && !seen.contains("rekindle="), "{seen}");
    }
}

#[tokio::test]
async fn a_browser_reaches_the_port_of_its_token_and_no_other() {
    let world = World::start(App::Echo).await;
    let (host, mut client) = (world.host(), world.connect(false).await);
    let cookie = log_in(&mut client, &host, &world.token_for_ports(&[3000])).await.unwrap();
    let url = || format!("https://{host}/");
    let response = send(&mut client, Method::GET, url(), &[("cookie", &cookie)]).await;
    assert_eq!((response.status(), world.port()), (StatusCode::OK, 3000));
    text(response).await;
    let response =
        send(&mut client, Method::GET, url(), &[("cookie", &cookie), ("x-aws-proxy-port", "8080")]).await;
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    assert_eq!(text(response).await, "Access to port denied");
}

#[tokio::test]
async fn the_page_is_the_same_for_every_host_and_a_wrong_token_opens_nothing() {
    let world = World::start(App::Echo).await;
    let unknown = world.hosts.host(ids::EndpointId::random());
    let mut pages = Vec::new();
    for host in [world.host(), unknown.clone()] {
        let mut client = world.connect_to(&host, true).await;
        let response = send(&mut client, Method::GET, format!("https://{host}{PATH}"), &[]).await;
        assert_eq!(response.status(), StatusCode::OK);
        let policy = response.headers()[CONTENT_SECURITY_POLICY].to_str().unwrap().to_owned();
        let nonce = policy.split("'nonce-").nth(1).unwrap().split('\'').next().unwrap().to_owned();
        pages.push(text(response).await.replace(&nonce, ""));
        let shell = world.shell_token(60);
        let foreign = world.token_for(ids::MicrovmId::random());
        let mut wrong = vec!["", "nonsense", &shell, &foreign];
        let good = world.token();
        if host == unknown {
            wrong.push(&good);
        }
        for token in wrong {
            let url = format!("https://{host}{PATH}");
            let response = send(&mut client, Method::POST, url, &[("x-aws-proxy-login", token)]).await;
            assert_eq!(response.status(), StatusCode::FORBIDDEN);
            assert!(!response.headers().contains_key(SET_COOKIE));
            assert_eq!(text(response).await, "Request missing authentication");
        }
    }
    assert!(pages[0].contains("x-aws-proxy-login") && pages[0] == pages[1]);
    assert_eq!(world.wakes(), 0);
    // To a client of the service the path is the application's.
    let mut client = world.connect(true).await;
    let response = client.send(world.request(PATH).body(empty()).unwrap()).await;
    assert!(text(response).await.contains(PATH));
}

#[tokio::test]
async fn no_other_page_acts_with_the_cookie() {
    let world = World::start(App::Echo).await;
    let (host, mut client) = (world.host(), world.connect(false).await);
    let cookie = log_in(&mut client, &host, &world.token()).await.unwrap();
    let neighbour = format!("https://{}", world.hosts.host(ids::EndpointId::random()));
    let url = || format!("https://{host}/");
    for (method, headers) in [
        (Method::POST, &[("origin", neighbour.as_str())][..]),
        (Method::GET, &[("origin", neighbour.as_str()), ("sec-fetch-site", "same-site")]),
        (Method::POST, &[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")]),
        (Method::GET, &[("sec-fetch-site", "same-site"), ("sec-fetch-dest", "image")]),
    ] {
        let headers = [headers, &[("cookie", cookie.as_str())]].concat();
        let response = send(&mut client, method, url(), &headers).await;
        assert_eq!(response.status(), StatusCode::FORBIDDEN, "{headers:?}");
        text(response).await;
    }
    assert_eq!(world.requests(), 0);
    let from =
        [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];
    let headers = [&from[..], &[("cookie", cookie.as_str())]].concat();
    assert_eq!(send(&mut client, Method::GET, url(), &headers).await.status(), StatusCode::OK, "a link");
}

#[tokio::test]
async fn a_websocket_takes_the_cookie_from_its_own_origin_alone() {
    let world = World::start(App::Echo).await;
    let host = world.host();
    let cookie = log_in(&mut world.connect(false).await, &host, &world.token()).await.unwrap();
    let own = format!("https://{host}");
    let foreign = format!("https://{}", world.hosts.host(ids::EndpointId::random()));
    for (origin, expected) in [(own, StatusCode::SWITCHING_PROTOCOLS), (foreign, StatusCode::FORBIDDEN)] {
        let headers = [
            (COOKIE.as_str(), cookie.as_str()),
            ("origin", &origin),
            ("connection", "upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        let mut client = world.connect(false).await;
        let response = send(&mut client, Method::GET, format!("https://{host}/ws"), &headers).await;
        assert_eq!(response.status(), expected, "{origin}");
    }
}
