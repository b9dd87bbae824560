//! The images under `examples/` that no other test uses.

use rekindle_e2e::{Artifact, Hooks, ImageRequest, Json, Microvm, json};

use crate::fixture;

/// Its Node is Debian's package, which the build fetches.
pub(crate) fn node() {
    let server = fixture::shared();
    let image =
        ImageRequest::of(&server, "node", &Artifact::of("examples/node")).create(&server).built(&server);
    let payload = ["--run-hook-payload", "for the first"];
    let (first, second) = (Microvm::run(&server, &image, &payload), Microvm::run(&server, &image, &[]));
    let about = first.json("/");
    assert_eq!((&about["microvmId"], &about["runHookPayload"]), (&json!(first.id), &json!("for the first")));
    assert!(about["node"].as_str().unwrap().starts_with('v'), "{about}");
    let key = about["key"].as_str().unwrap();
    assert!(key.len() == 32 && second.json("/")["key"] != key, "a clone's key is its own: {about}");
    first.request("/notes", &["--data", "remember me"]).expect(201);
    first.suspend();
    first.resume();
    assert_eq!(first.json("/notes")[0]["text"], "remember me");
    assert_eq!(second.json("/notes"), json!([]));
    let hooks = &first.json("/")["hooks"];
    assert_eq!((&hooks["run"], &hooks["suspend"], &hooks["resume"]), (&json!(1), &json!(1), &json!(1)));
    [first, second].iter().for_each(|microvm| drop(microvm.terminate()));
    image.delete(&server);
}

pub(crate) fn sandbox() {
    const WITHOUT_ZOMBIES: &str =
        "(true &); sleep 0.5; grep --files-with-matches '^State:.Z' /proc/[1-9]*/status";
    let server = fixture::shared();
    let request =
        ImageRequest::of(&server, "sandbox", &Artifact::of("examples/sandbox")).hooks(Hooks::Disabled);
    let image = request.create(&server).built(&server);
    let microvm = Microvm::run(&server, &image, &[]);
    assert_eq!(
        run(&microvm, &json!({"command": "id --user --name; pwd; cat >&2; exit 3", "stdin": "of a client"})),
        ("sandbox\n/workspace\n".to_owned(), "of a client".to_owned(), json!({"exit": 3}))
    );
    let killed = run(&microvm, &json!({"command": "sleep 600", "seconds": 0.5}));
    assert_eq!(killed.2, json!({"timeout": 0.5}));
    assert_eq!(run(&microvm, &json!({"command": WITHOUT_ZOMBIES})).0, "");
    microvm.request("/run", &["--data", r#"{"command": 1}"#]).expect(400);

    microvm.request("/files/some/where.txt", &["--request", "PUT", "--data", "a file"]).expect(200);
    assert_eq!(microvm.json("/files/"), json!(["some/"]));
    let left = run(&microvm, &json!({"command": "sleep 600 & echo $!"}));
    assert_eq!(left.2, json!({"exit": 0}), "what is left in the background is not waited for");
    microvm.suspend();
    microvm.resume();
    assert_eq!(microvm.request("/files/some/where.txt", &[]).expect(200).body, "a file");
    let goes_on = format!("kill {}", left.0);
    assert_eq!(run(&microvm, &json!({"command": goes_on})).2, json!({"exit": 0}), "the process has survived");
    microvm.terminate();
    image.delete(&server);
}

/// Its engine is Debian's podman, which needs every capability.
pub(crate) fn ci_runner() {
    let server = fixture::shared();
    let request =
        ImageRequest::of(&server, "ci-runner", &Artifact::of("examples/ci-runner")).hooks(Hooks::Ready(300));
    let image = request.all_capabilities().create(&server).built(&server);
    let microvm = Microvm::run(&server, &image, &[]);
    let about = microvm.json("/");
    assert!(about["engine"].as_str().unwrap().starts_with("podman version"), "{about}");
    assert_eq!(about["images"], json!(["busybox"]));

    let script = "echo $CI $$; id -u; ls -d /app; grep -c '^overlay / ' /proc/mounts; exit 7";
    let ended = job(&microvm, &json!({"script": script, "environment": {"CI": "yes"}}));
    assert_eq!(ended["exit"], 7, "{ended}");
    let output = ended["output"].as_str().unwrap();
    assert!(
        output.starts_with("yes 1\n0\n") && output.ends_with("\n1\n"),
        "a container on an overlay: {output}"
    );
    assert!(output.contains("/app: No such file"), "its root is the image's: {output}");
    let stopped = job(&microvm, &json!({"script": "echo begun; sleep 600", "seconds": 20}));
    assert_eq!(stopped, json!({"timeout": 20, "output": "begun\n"}));
    microvm.suspend();
    microvm.resume();
    let resolved = job(&microvm, &json!({"script": "nslookup deb.debian.org | grep -c ^Name"}));
    assert_eq!(resolved["exit"], 0, "jobs reach the network: {resolved}");
    microvm.request("/jobs", &["--data", r#"{"script": "true", "image": "nowhere"}"#]).expect(200);
    microvm.request("/jobs", &["--data", r#"{"script": 1}"#]).expect(400);
    microvm.terminate();
    image.delete(&server);
}

fn job(microvm: &Microvm<'_>, request: &Json) -> Json {
    microvm.request("/jobs", &["--data", &request.to_string()]).expect(200).json()
}

/// What a command prints, on each of the two, and how it ended.
fn run(microvm: &Microvm<'_>, request: &Json) -> (String, String, Json) {
    let answer = microvm.request("/run", &["--data", &request.to_string()]).expect(200).body;
    let mut pieces: Vec<Json> = answer.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let end = pieces.pop().unwrap();
    let printed = |stream: &str| pieces.iter().filter_map(|piece| piece[stream].as_str()).collect();
    (printed("stdout"), printed("stderr"), end)
}
