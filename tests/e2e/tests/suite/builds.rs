//! Image builds: those that must fail, each with its reason, and those that must not.

use std::process::Command;

use rekindle_e2e::{Artifact, Hooks, ImageRequest, Json, Microvm, Neighbour, Server, json, neighbour};

use crate::fixture;

/// Long enough for the build to get so far, short enough to wait for.
const HOOK_SECONDS: u32 = 40;
/// For a hook that is answered, by an application that starts first.
const ANSWER_SECONDS: u32 = 300;

fn reason(build: &Json) -> &str {
    build["stateReason"].as_str().unwrap_or_else(|| panic!("no reason: {build}"))
}

/// The reason of a build that must fail.
fn failure(server: &Server, request: &ImageRequest<'_>) -> String {
    let image = request.create(server);
    let reason = reason(&image.failed(server)).to_owned();
    image.delete(server);
    reason
}

/// Two at once: as many as there are processors, and proof that they do not disturb each other.
fn failures(server: &Server, requests: [ImageRequest<'_>; 2]) -> [String; 2] {
    let images = requests.map(|request| request.create(server));
    images.map(|image| {
        let reason = reason(&image.failed(server)).to_owned();
        image.delete(server);
        reason
    })
}

fn probe<'a>(server: &Server, name: &'a str, variables: Json, hooks: Hooks) -> ImageRequest<'a> {
    ImageRequest::of(server, name, &Artifact::probe()).variables(variables).hooks(hooks)
}

pub(crate) fn artifacts_that_cannot_be_built_say_why() {
    let server = fixture::shared();
    let uploaded = |name: &str, content: &[u8]| server.upload(name, content);
    let no_dockerfile = Artifact::new().file("app/Dockerfile", "FROM scratch\n").zip();
    for (name, uri, words) in [
        ("not-a-zip", uploaded("not-a-zip.zip", b"certainly not a zip"), "zip"),
        ("no-dockerfile", uploaded("no-dockerfile.zip", &no_dockerfile), "Dockerfile"),
        ("no-key", "s3://artifacts/there-is-no-such-key.zip".to_owned(), "there-is-no-such-key.zip"),
        ("no-bucket", "s3://there-is-no-such-bucket/app.zip".to_owned(), "there-is-no-such-bucket"),
    ] {
        let request = ImageRequest {
            name,
            uri,
            hooks: Hooks::Disabled,
            variables: json!({}),
            memory_mib: 512,
            all_capabilities: false,
        };
        let reason = failure(&server, &request);
        assert!(reason.contains(words), "{name}: {reason}");
    }
}

pub(crate) fn a_failed_step_fails_the_build_with_its_output() {
    let server = fixture::shared();
    let dockerfile = "FROM rekindle/python:3.13\nRUN echo the last words && exit 3\n";
    let artifact = Artifact::new().file("Dockerfile", dockerfile);
    let image = ImageRequest::of(&server, "failed-step", &artifact).hooks(Hooks::Disabled).create(&server);
    let build = image.failed(&server);
    assert!(reason(&build).contains("The container image build failed."), "{build}");
    assert!(build["snapshotBuild"].is_null(), "{build}");
    let log = server.logs(build["buildId"].as_str().unwrap());
    assert!(log.lines().any(|line| line.contains("the last words") && !line.contains("echo")), "{log}");
    let run = server.aws_error(&["lambda-microvms", "run-microvm", "--image-identifier", &image.arn]);
    assert!(run.contains("No active version found for MicroVM image"), "{run}");
    image.delete(&server);
}

pub(crate) fn ready_hooks_that_fail_fail_the_build() {
    let server = fixture::shared();
    let request = |name: &'static str, status: u16| {
        let ready = json!({ "PROBE_READY": json!({ "status": status }).to_string() });
        probe(&server, name, ready, Hooks::Ready(ANSWER_SECONDS))
    };
    let [client, error] = failures(&server, [request("ready-4xx", 404), request("ready-5xx", 500)]);
    assert_eq!(
        client,
        "Ready hook check failed: the application returned a client error (HTTP 4xx) response"
    );
    assert_eq!(error, "Ready hook check failed: the application returned a server error (HTTP 5xx) response");
    let never = json!({ "PROBE_READY": r#"{"unavailable":1000000}"# });
    let late = failure(&server, &probe(&server, "ready-late", never, Hooks::Ready(HOOK_SECONDS)));
    assert_eq!(late, format!("Ready hook invocation timed out after PT{HOOK_SECONDS}S"));
}

pub(crate) fn an_application_that_ends_before_it_is_ready_fails_the_build() {
    let server = fixture::shared();
    let ends = probe(&server, "ends", json!({ "PROBE_EXIT": "7" }), Hooks::Ready(300));
    let image = ends.create(&server);
    let build = image.failed(&server);
    // The reason names the exit code; the log has what the application said.
    assert!(reason(&build).contains('7'), "{build}");
    let log = server.logs(build["buildId"].as_str().unwrap());
    assert!(log.contains("ending as PROBE_EXIT says"), "{log}");
    image.delete(&server);
    let artifact =
        Artifact::new().file("Dockerfile", "FROM rekindle/python:3.13\nCMD [\"/no/such/program\"]\n");
    let missing = ImageRequest::of(&server, "missing-program", &artifact).hooks(Hooks::Ready(HOOK_SECONDS));
    let reason = failure(&server, &missing);
    assert!(reason.contains("Failed to start container"), "{reason}");
}

pub(crate) fn validate_hooks_that_fail_fail_the_build() {
    let server = fixture::shared();
    let request = |name: &'static str, validate: Json| {
        let variables = json!({ "PROBE_VALIDATE": validate.to_string() });
        probe(&server, name, variables, Hooks::ReadyAndValidate(HOOK_SECONDS))
    };
    let wrong = request("validate-5xx", json!({ "status": 500 }));
    let late = request("validate-late", json!({ "delay": 1000 }));
    let [wrong, late] = failures(&server, [wrong, late]);
    assert_eq!(
        wrong,
        "Validate hook check failed: the application returned a server error (HTTP 5xx) response"
    );
    assert_eq!(late, format!("Validate hook invocation timed out after PT{HOOK_SECONDS}S"));
}

pub(crate) fn a_ready_hook_may_answer_503_until_it_is_ready() {
    let server = fixture::shared();
    let slow = json!({ "PROBE_READY": r#"{"unavailable":2}"# });
    let image = probe(&server, "ready-slow", slow, Hooks::All).create(&server).built(&server);
    let microvm = Microvm::run(&server, &image, &[]);
    assert_eq!(microvm.json("/")["hooks"]["ready"], 3);
    microvm.terminate();
}

pub(crate) fn stages_arguments_heredocs_users_and_ignored_files() {
    let server = fixture::shared();
    let request = ImageRequest::of(&server, "stages", &Artifact::of("tests/apps/stages"));
    let image = request.hooks(Hooks::Disabled).create(&server).built(&server);
    let microvm = Microvm::run(&server, &image, &[]);
    let told = microvm.json("/");
    assert_eq!(told["greeting"], "hello from a heredoc", "{told}");
    let context: Vec<&str> = told["context"].as_array().unwrap().iter().filter_map(Json::as_str).collect();
    assert!(context.contains(&"secret-but-wanted") && !context.contains(&"secret"), "{told}");
    assert_eq!(
        (&told["uid"], &told["owner"], &told["folder"]),
        (&json!(10001), &json!(10001), &json!("/srv"))
    );
    // What a later step removed or replaced is so, be it an earlier step's or the base's.
    assert_eq!(told["laid"], json!(["/laid/replaced", "/laid/replaced/new", "/laid/stays"]));
    assert_eq!((&told["skeleton"], &told["issue"]), (&json!(["new"]), &json!(false)));
    // The base's files are shared, and not each image's own.
    let own = image.build(&server, "1.0")["snapshotBuild"]["codeInstallSizeInBytes"].as_u64().unwrap();
    assert!(own < 4 << 20, "{own} bytes");
    microvm.terminate();
}

/// A public address, and a name that must be resolved first.
pub(crate) fn steps_reach_the_network() {
    const NAME: &str = "http://deb.debian.org/debian/dists/stable/Release";
    let server = fixture::shared();
    let here =
        Command::new("curl").args(["--silent", "--fail", "--output", "/dev/null", NAME]).status().unwrap();
    assert!(here.success(), "this host itself does not reach {NAME}");
    let public = Neighbour::new("build", "198.51.100");
    let dockerfile = format!(
        "FROM rekindle/python:3.13\n\
         RUN python3 -c \"import socket; socket.create_connection(('{}', {}), 5)\"\n\
         RUN python3 -c \"import urllib.request as r; assert b'Origin: Debian' in r.urlopen('{NAME}').read()\"\n\
         CMD [\"python3\", \"-m\", \"http.server\", \"8080\"]\n",
        public.address,
        neighbour::PORT
    );
    let artifact = Artifact::new().file("Dockerfile", dockerfile);
    let image = ImageRequest::of(&server, "network", &artifact).hooks(Hooks::Disabled).create(&server);
    image.built(&server).delete(&server);
}

/// What a build finds of earlier ones: all that it needs, the steps that the change does not reach, or nothing.
pub(crate) fn a_build_uses_what_earlier_ones_of_its_account_left() {
    const DOCKERFILE: &str = "FROM rekindle/python:3.13\n\
         RUN echo the step ran on $(head -c 8 /proc/sys/kernel/random/uuid) > /step && cat /step\n\
         COPY greeting /greeting\n\
         CMD [\"python3\", \"-m\", \"http.server\", \"8080\", \"--directory\", \"/\"]\n";
    let server = fixture::shared();
    let artifact = |greeting: &str| Artifact::new().file("Dockerfile", DOCKERFILE).file("greeting", greeting);
    let request =
        |greeting: &str| ImageRequest::of(&server, "rebuilt", &artifact(greeting)).hooks(Hooks::Disabled);
    let image = request("first").create(&server).built(&server);
    let log = |version: &str| {
        let build = image.build(&server, version);
        assert_eq!(build["buildState"], "SUCCESSFUL", "{build}");
        server.logs(build["buildId"].as_str().unwrap())
    };
    let ran = |log: &str| log.lines().any(|line| line.starts_with("the step ran on "));
    let first = log("1.0");
    assert!(ran(&first), "{first}");

    image.update(&request("first"), &server);
    let second = log("2.0");
    assert!(second.contains("Using the container that a build"), "{second}");
    assert!(!ran(&second) && !second.contains("STEP"), "{second}");

    image.update(&request("third"), &server);
    let third = log("3.0");
    assert!(third.contains("Using cache") && third.contains("COPY greeting") && !ran(&third), "{third}");

    let served = |version: &str, path: &str| {
        let microvm = Microvm::run(&server, &image, &["--image-version", version]).listening();
        let body = microvm.request(path, &[]).expect(200).body;
        microvm.terminate();
        body
    };
    assert_eq!(["2.0", "3.0"].map(|version| served(version, "/greeting")), ["first", "third"]);
    assert_eq!(served("2.0", "/step"), served("3.0", "/step"));
    image.delete(&server);
}
