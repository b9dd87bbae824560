//! Ways in that AWS has not: login links for browsers, public ports, names of the operator's own.

use std::process::Command;

use rekindle_e2e::{Json, Microvm, Server, command, json};

/// One that `networks.toml` allows.
const DOMAIN: &str = "app.rekindle.test";
const OTHER: &str = "other.rekindle.test";

/// `microvm` wakes by a request.
pub(crate) fn without_a_token_in_a_header(server: &Server, microvm: &Microvm<'_>) {
    a_login_link_lets_a_browser_in(server, microvm);
    a_public_port_needs_no_token(server, microvm);
    a_name_of_ones_own_leads_to_it(server, microvm);
}

fn rekindle(server: &Server, arguments: &[&str]) -> String {
    let mut rekindle = Command::new(command::rekindle());
    command::must(rekindle.args(arguments).arg("--data-dir").arg(server.data_dir())).trim_end().to_owned()
}

/// What a browser makes of a link.
fn browse(server: &Server, link: &str) -> Json {
    let script = command::workspace().join("tests/e2e/clients/browser.mjs");
    let mut node = Command::new(command::clients().join("bin/node"));
    let printed = command::must(node.arg(script).arg(link).envs(server.environment()));
    serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{error}: {printed}"))
}

fn a_login_link_lets_a_browser_in(server: &Server, microvm: &Microvm<'_>) {
    let link = rekindle(server, &["open", &microvm.id, "--path", "/headers?x"]);
    let (page, token) = link.split_once('#').unwrap();
    assert_eq!(page, microvm.url("/.rekindle/login"));
    let browsed = browse(server, &link);
    assert_eq!(browsed["next"], microvm.url("/headers?x"), "{browsed}");
    let cookie = browsed["cookie"].as_str().unwrap();
    assert!(
        cookie.starts_with("__Host-rekindle=") && cookie.contains("; HttpOnly; SameSite=Lax"),
        "{cookie}"
    );
    // To no other host.
    let (token, _) = token.split_once('&').unwrap();
    let astray = browse(server, &format!("{page}#{token}&next=https%3A%2F%2Fexample.com"));
    assert_eq!(astray["next"], "/", "{astray}");
    let wrong = browse(server, &format!("{page}#wrong"));
    assert!(wrong["said"].as_str().unwrap().contains("has expired"), "{wrong}");

    // The same by curl, which keeps the cookie.
    let (jar, login) = (server.scratch("cookies"), format!("x-aws-proxy-login: {token}"));
    let jar = jar.to_str().unwrap();
    server.curl(page, &["--request", "POST", "--header", &login, "--cookie-jar", jar]).expect(204);
    let get = |path: &str, options: &[&str]| {
        server.curl(&microvm.url(path), &[&["--cookie", jar][..], options].concat())
    };
    let seen = get("/headers", &[]).expect(200).json();
    assert!(seen.get("cookie").is_none(), "{seen}");
    get("/", &["--header", "X-aws-proxy-port: 9000"]).expect(403);
    // As from a page of another MicroVM, which is of the same site.
    get("/", &["--header", "Sec-Fetch-Site: same-site", "--header", "Sec-Fetch-Mode: cors"]).expect(403);
    get("/counter", &["--data", "", "--header", "Origin: https://elsewhere.test"]).expect(403);
}

fn a_public_port_needs_no_token(server: &Server, microvm: &Microvm<'_>) {
    let get = |options: &[&str]| server.curl(&microvm.url("/headers"), options).status;
    assert_eq!(get(&[]), 403);
    let told = rekindle(server, &["public", &microvm.id]);
    assert!(told.ends_with("anybody may send requests to 8080"), "{told}");
    microvm.suspend();
    assert_eq!(get(&[]), 200, "a request wakes it");
    assert_eq!(get(&["--header", "X-aws-proxy-port: 9000"]), 403);
    assert_eq!(rekindle(server, &["public", &microvm.id, "--show"]), told);
    let told = rekindle(server, &["public", &microvm.id, "--off"]);
    assert!(told.ends_with("every port needs a token"), "{told}");
    assert_eq!(get(&[]), 403);
}

fn a_name_of_ones_own_leads_to_it(server: &Server, microvm: &Microvm<'_>) {
    let port = server.endpoint_port();
    let url = |name: &str| format!("https://{name}:{port}/headers");
    let here = |name: &str, options: &[&str]| {
        let resolve = format!("{name}:{port}:127.0.0.1");
        server.try_curl(&url(name), &[&["--resolve", &resolve][..], options].concat())
    };
    let refused = here(DOMAIN, &[]).unwrap_err();
    assert!(refused.contains("SSL"), "nobody has the name yet: {refused}");
    let told = rekindle(server, &["domain", "add", DOMAIN, &microvm.id]);
    assert_eq!(told, format!("https://{DOMAIN}:{port}/ -> {}", microvm.id));
    assert_eq!(here(DOMAIN, &[]).unwrap().status, 403);
    let auth = microvm.auth();
    let seen = here(DOMAIN, &["--header", &auth]).unwrap().expect(200).json();
    assert_eq!(seen["host"], format!("{DOMAIN}:{port}"), "{seen}");
    rekindle(server, &["public", &microvm.id]);
    assert_eq!(here(DOMAIN, &[]).unwrap().status, 200);
    let astray = format!("Host: {}", microvm.endpoint);
    assert_eq!(here(DOMAIN, &["--header", &astray]).unwrap().status, 421);

    assert_eq!(rekindle(server, &["domain", "list"]), format!("{DOMAIN}\t{}", microvm.id));
    // By the AWS CLI too, which takes the model of these operations.
    let models = command::workspace().join("crates/api/models").to_str().unwrap().to_owned();
    let mut environment = server.environment().clone();
    environment.insert("AWS_DATA_PATH".into(), models);
    let listed = command::must(&mut command::aws(&environment, &["rekindle", "list-domains"]));
    let listed: Json = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed["items"][0]["domainName"], DOMAIN, "{listed}");
    let access = ["rekindle", "put-endpoint-access", "--public-ports", "[]", "--resource", &microvm.id];
    let closed = command::must(&mut command::aws(&environment, &access));
    let closed: Json = serde_json::from_str(&closed).unwrap();
    assert_eq!(closed, json!({ "resource": microvm.id, "publicPorts": [] }));
    assert_eq!(here(DOMAIN, &[]).unwrap().status, 403);

    rekindle(server, &["domain", "remove", DOMAIN]);
    assert!(here(DOMAIN, &[]).is_err());
    let mut outside = Command::new(command::rekindle());
    outside.args(["domain", "add", "example.com", &microvm.id, "--data-dir"]).arg(server.data_dir());
    let refused = command::text(&command::run(&mut outside).stderr);
    assert!(refused.contains("`domains` in the settings"), "{refused}");
    rekindle(server, &["domain", "add", OTHER, &microvm.id]);
}

/// With the MicroVM its name has gone.
pub(crate) fn nothing_is_left(server: &Server) {
    assert_eq!(rekindle(server, &["domain", "list"]), "");
}
