//! The shell of a MicroVM (SPEC §6), through a WebSocket and through `rekindle shell`.

use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use futures::{SinkExt, StreamExt};
use rekindle_e2e::terminal::Terminal;
use rekindle_e2e::{Microvm, Server, command, json};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use crate::{fixture, sockets};

/// For the shell to show what is expected, or to end; commands are slow without hardware virtualization.
const PATIENCE: Duration = Duration::from_secs(60);
const CONNECTORS: &str = "arn:aws:lambda:us-east-1:aws:network-connector:aws-network-connector";
const AUTH: &str = "x-aws-proxy-auth";

pub(crate) fn a_shell_beside_the_application() {
    let server = fixture::shared();
    let policy =
        json!({ "maxIdleDurationSeconds": 600, "suspendedDurationSeconds": 600, "autoResumeEnabled": true });
    let microvm = Microvm::run(
        &server,
        &fixture::probe(&server),
        &[
            "--ingress-network-connectors",
            &format!("{CONNECTORS}:HTTP_INGRESS"),
            &format!("{CONNECTORS}:SHELL_INGRESS"),
            "--idle-policy",
            &policy.to_string(),
        ],
    );
    let token = token(&server, &microvm);
    only_a_shells_token_on_a_websocket_opens_it(&server, &microvm, &token);
    let mut first = Shell::open(&microvm, &token);
    it_is_a_roots_terminal_in_the_container(&mut first);
    keys_do_what_they_do_in_a_terminal(&mut first);
    two_at_once_see_the_application_and_leave_nothing(&microvm, &token, &mut first);
    a_suspension_ends_it_and_a_new_one_wakes_the_microvm(&microvm, &token, first);
    rekindle_shell_types_what_is_piped_in(&server, &microvm);
    in_a_terminal_rekindle_shell_is_the_guests(&server, &microvm);
    let mut last = Shell::open(&microvm, &token);
    microvm.terminate();
    assert_eq!(last.closed(), (1001, "microvm terminated".to_owned()));
}

fn only_a_shells_token_on_a_websocket_opens_it(server: &Server, microvm: &Microvm<'_>, token: &str) {
    let plain = server.curl(&microvm.url("/shell"), &["--header", &format!("{AUTH}: {token}")]).expect(502);
    assert_eq!(plain.body, "", "{plain:?}");
    let wrong = token[..token.len() - 4].to_owned();
    for (headers, status) in [
        (vec![], 403),
        (vec![(AUTH, wrong)], 403),
        // An application's token leads to the application, where nothing listens on the shell's port.
        (vec![(AUTH, microvm.token().to_owned()), ("x-aws-proxy-port", "8022".to_owned())], 502),
    ] {
        let refused = Shell::try_open(microvm, "/shell", &headers).err();
        assert_eq!(refused, Some(status), "{headers:?}");
    }
    let protocols =
        format!("lambda-microvms.port.8022, lambda-microvms.authentication.{token}, lambda-microvms");
    let (shell, selected) = Shell::try_open(microvm, "/", &[("sec-websocket-protocol", protocols)]).unwrap();
    assert_eq!(selected.as_deref(), Some("lambda-microvms"));
    drop(shell);
}

fn it_is_a_roots_terminal_in_the_container(shell: &mut Shell) {
    shell.expect("λ $ ");
    shell.type_in("echo \"[$(id -u) $(tty | tr -d 0-9) $(stty size) $PWD $TERM $HOME $AWS_REGION]\"\n");
    shell.expect("[0 /dev/pts/ 0 0 /app xterm /root us-east-1]");
    shell.send(Message::text(r#"{"type":"resize","cols":120,"rows":40}"#));
    shell.type_in("echo \"[$(stty size)]\"\n");
    shell.expect("[40 120]");
    // Exactly the rights of the application, which runs as root too.
    shell.type_in("for s in Cap Sec NoNew; do diff <(grep ^$s /proc/1/status) <(grep ^$s /proc/self/status) && echo \"[$s]\"; done\n");
    for same in ["[Cap]", "[Sec]", "[NoNew]"] {
        shell.expect(same);
    }
}

fn keys_do_what_they_do_in_a_terminal(shell: &mut Shell) {
    shell.type_in("sh -c 'echo waiting; exec sleep 1000'\n");
    shell.expect("waiting\r\n");
    shell.type_in("\u{3}");
    shell.type_in("echo \"[$?]\"\n");
    shell.expect("[130]");
    shell.type_in("sleep 1001 &\n");
    shell.type_in("jobs; kill %1; wait %1; echo \"[$?]\"\n");
    shell.expect("Running");
    shell.expect("[143]");
    // Far more than anybody keeps, and a client that does not read meanwhile.
    shell.type_in("yes\n");
    shell.expect("\ny\r\ny\r\n");
    shell.type_in("\u{3}");
    shell.type_in("echo \"[$?]\"\n");
    shell.expect("[130]");
}

fn two_at_once_see_the_application_and_leave_nothing(microvm: &Microvm<'_>, token: &str, first: &mut Shell) {
    let mut second = Shell::open(microvm, token);
    let (one, two) = (first.terminal(), second.terminal());
    assert_ne!(one, two);
    second.type_in("tr '\\0' ' ' </proc/1/cmdline; ls /app\n");
    second.expect("python3 -u probe.py");
    second.expect("probe.py");
    second.type_in("echo by hand >/tmp/note; echo \"[writ\"\"ten]\"\n");
    second.expect("[written]");
    assert_eq!(microvm.json("/file?path=/tmp/note")["text"], "by hand\n");
    // What does not end with its terminal is ended with the shell.
    second.type_in("nohup sleep 1002 >/dev/null 2>&1 & exit\n");
    assert_eq!(second.closed(), (1000, "shell exited".to_owned()));
    // Of the dead there is no command line.
    first.type_in("while grep -qs '100[2]' /proc/[0-9]*/cmdline; do :; done; echo \"[go\"\"ne]\"\n");
    first.expect("[gone]");
}

fn a_suspension_ends_it_and_a_new_one_wakes_the_microvm(
    microvm: &Microvm<'_>,
    token: &str,
    mut shell: Shell,
) {
    shell.type_in("trap '' HUP; nohup sleep 1003 >/dev/null 2>&1 & echo \"[de\"\"af]\"\n");
    shell.expect("[deaf]");
    microvm.call("suspend-microvm");
    assert_eq!(shell.closed(), (1001, "microvm suspended".to_owned()));
    microvm.wait("SUSPENDED");
    // The token goes on, and no process of before has been saved.
    let mut shell = Shell::open(microvm, token);
    assert_eq!(microvm.state(), "RUNNING");
    shell.type_in("n=0; for d in /proc/[0-9]*; do read -r -d '' c <$d/cmdline; ");
    shell.type_in("[[ $c == bash || $c == sleep ]] && n=$((n + 1)); done\n");
    shell.type_in("echo \"[$n]\"\n");
    // Itself.
    shell.expect("[1]");
    shell.type_in("exit\n");
    assert_eq!(shell.closed(), (1000, "shell exited".to_owned()));
}

fn rekindle_shell_types_what_is_piped_in(server: &Server, microvm: &Microvm<'_>) {
    let piped = rekindle_shell(server, microvm, Stdio::piped(), "echo \"[$((6 * 7))]\"\n");
    let (shown, complaint) = (command::text(&piped.stdout), command::text(&piped.stderr));
    assert!(piped.status.success() && shown.contains("[42]"), "{shown}{complaint}");
    let refused = rekindle_shell(server, microvm, Stdio::null(), "");
    let complaint = command::text(&refused.stderr);
    assert!(!refused.status.success() && complaint.contains("neither a terminal"), "{complaint}");
}

fn in_a_terminal_rekindle_shell_is_the_guests(server: &Server, microvm: &Microvm<'_>) {
    let mut terminal = Terminal::start(&mut rekindle_shell_in(server, microvm), 100, 30);
    terminal.expect("λ $ ");
    assert!(!terminal.is_for_lines());
    terminal.type_in("echo \"[$(stty size)]\"\r");
    terminal.expect("[30 100]");
    terminal.resize(90, 20);
    terminal.type_in("until [ \"$(stty size)\" = '20 90' ]; do :; done; echo \"[resi\"\"zed]\"\r");
    terminal.expect("[resized]");
    // ^C is the guest's, and so is the end of what is typed.
    terminal.type_in("sh -c 'echo wai\"\"ting; exec sleep 1000'\r");
    terminal.expect("waiting\r\n");
    terminal.type_in("\u{3}");
    terminal.type_in("echo \"[$?]\"\r");
    terminal.expect("[130]");
    // Before the shell reads keys again, the end of what is typed would be the command's and not its own.
    terminal.expect("λ $ ");
    terminal.type_in("\u{4}");
    assert!(terminal.ended().success());
    assert!(terminal.is_for_lines(), "the terminal is as it was");
}

fn rekindle_shell_in(server: &Server, microvm: &Microvm<'_>) -> Command {
    let mut command = Command::new(command::rekindle());
    command.args(["shell", &microvm.id, "--data-dir"]).arg(server.data_dir());
    command
}

fn rekindle_shell(server: &Server, microvm: &Microvm<'_>, stdin: Stdio, input: &str) -> Output {
    let mut child = rekindle_shell_in(server, microvm)
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).unwrap();
    }
    child.wait_with_output().unwrap()
}

fn token(server: &Server, microvm: &Microvm<'_>) -> String {
    let answer = server.aws(&[
        "lambda-microvms",
        "create-microvm-shell-auth-token",
        "--microvm-identifier",
        &microvm.id,
        "--expiration-in-minutes",
        "30",
    ]);
    answer["authToken"]["X-aws-proxy-auth"].as_str().unwrap().to_owned()
}

/// A WebSocket client, and what it was shown and has not been asked for yet.
struct Shell {
    runtime: Runtime,
    socket: WebSocketStream<TlsStream<TcpStream>>,
    shown: String,
}

impl Shell {
    /// One whose session has begun.
    fn open(microvm: &Microvm<'_>, token: &str) -> Self {
        let mut shell = Self::try_open(microvm, "/shell", &[(AUTH, token.to_owned())]).unwrap().0;
        match shell.next() {
            Message::Text(init) => {
                assert!(init.starts_with(r#"{"type":"session_init","session_id":""#), "{init}");
            }
            other => panic!("the session begins with {other:?}"),
        }
        shell
    }

    /// With the subprotocol that was selected; or the status of the refusal.
    fn try_open(
        microvm: &Microvm<'_>,
        path: &str,
        headers: &[(&'static str, String)],
    ) -> Result<(Self, Option<String>), u16> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let opened = runtime.block_on(sockets::websocket(microvm, path, headers));
        opened.map(|(socket, selected)| (Self { runtime, socket, shown: String::new() }, selected))
    }

    fn send(&mut self, message: Message) {
        self.runtime.block_on(self.socket.send(message)).unwrap();
    }

    fn type_in(&mut self, keys: &str) {
        self.send(Message::text(keys));
    }

    fn next(&mut self) -> Message {
        let Self { runtime, socket, shown } = self;
        let next = runtime.block_on(async { tokio::time::timeout(PATIENCE, socket.next()).await });
        let next = next.unwrap_or_else(|_| panic!("nothing comes after {shown:?}"));
        next.expect("the connection is cut without a word").expect("the connection breaks")
    }

    /// Reads until `text` is shown, and forgets what came up to it.
    fn expect(&mut self, text: &str) {
        self.until(text, |shown| shown.find(text).map(|at| at + text.len()));
    }

    /// Which terminal it is.
    fn terminal(&mut self) -> String {
        self.type_in("echo \"[$(tty)]\"\n");
        self.expect("[/dev/pts/");
        self.until("the terminal's number", |shown| shown.find(']'))
    }

    fn until(&mut self, what: &str, found: impl Fn(&str) -> Option<usize>) -> String {
        let began = Instant::now();
        loop {
            if let Some(end) = found(&self.shown) {
                return self.shown.drain(..end).collect();
            }
            assert!(began.elapsed() < PATIENCE, "no {what} in {:?}", self.shown);
            match self.next() {
                Message::Binary(bytes) => self.shown += &command::text(&bytes),
                Message::Ping(_) => {}
                other => panic!("{other:?} instead of {what}, after {:?}", self.shown),
            }
        }
    }

    /// Code and reason of the end, which comes now.
    fn closed(&mut self) -> (u16, String) {
        loop {
            match self.next() {
                Message::Close(Some(CloseFrame { code, reason })) => {
                    return (code.into(), reason.to_string());
                }
                Message::Binary(bytes) => self.shown += &command::text(&bytes),
                _ => {}
            }
        }
    }
}
