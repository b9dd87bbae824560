//! The images under `examples/` that no other test uses.

use futures::{SinkExt, StreamExt};
use rekindle_e2e::microvm::SETTLE;
use rekindle_e2e::{Artifact, Hooks, ImageRequest, Json, Microvm, json};
use tokio_tungstenite::tungstenite::Message;

use crate::{fixture, sockets};

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

/// Its Jupyter is PyPI's: Debian 13's answers no WebSocket of a kernel's. The kernel runs from before the snapshot.
pub(crate) fn notebook() {
    let server = fixture::shared();
    let request =
        ImageRequest::of(&server, "notebook", &Artifact::of("examples/notebook")).hooks(Hooks::Ready(300));
    let image = request.create(&server).built(&server);
    let (first, second) = (Microvm::run(&server, &image, &[]), Microvm::run(&server, &image, &[]));
    assert!(first.request("/notebooks/welcome.ipynb", &[]).expect(200).body.contains("Jupyter"));
    let sessions = first.json("/api/sessions");
    assert_eq!(sessions[0]["path"], "welcome.ipynb", "{sessions}");
    let kernel = sessions[0]["kernel"]["id"].as_str().unwrap();

    const DRAW: &str = "import random; drawn = random.random(); print(drawn)";
    let drawn = executed(&first, kernel, DRAW);
    assert_ne!(executed(&second, kernel, DRAW), drawn, "clones draw other numbers");
    first.suspend();
    first.resume();
    assert_eq!(executed(&first, kernel, "print(drawn)"), drawn, "the kernel has its variables");
    [first, second].iter().for_each(|microvm| drop(microvm.terminate()));
    image.delete(&server);
}

/// What a cell prints, by the WebSocket that a browser has to a notebook's kernel.
fn executed(microvm: &Microvm<'_>, kernel: &str, code: &str) -> String {
    const ID: &str = "cell";
    let path = format!("/api/kernels/{kernel}/channels?session_id=test");
    let request = json!({
        "channel": "shell",
        "header": {
            "msg_id": ID, "msg_type": "execute_request", "username": "", "session": "test", "version": "5.3",
        },
        "parent_header": {},
        "metadata": {},
        "content": { "code": code, "silent": false },
    });
    let exchange = async {
        let auth = [("x-aws-proxy-auth", microvm.token().to_owned())];
        let (mut socket, _) = sockets::websocket(microvm, &path, &auth).await.unwrap();
        socket.send(Message::text(request.to_string())).await.unwrap();
        let (mut printed, mut replied, mut idle) = (String::new(), false, false);
        while !(replied && idle) {
            let Message::Text(text) = socket.next().await.unwrap().unwrap() else { continue };
            let message: Json = serde_json::from_str(&text).unwrap();
            let content = &message["content"];
            match message["msg_type"].as_str() {
                _ if message["parent_header"]["msg_id"] != ID => {}
                Some("stream") => printed += content["text"].as_str().unwrap(),
                Some("status") => idle = content["execution_state"] == "idle",
                Some("execute_reply") => {
                    assert_eq!(content["status"], "ok", "{message}");
                    replied = true;
                }
                _ => {}
            }
        }
        printed
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(SETTLE, exchange).await }).expect("the kernel answers")
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
