//! Who may do what: accounts are strangers to each other, users and roles may do what their policies say.

use std::process::Command;

use rekindle_e2e::{Artifact, Hooks, Image, ImageRequest, Json, Microvm, Server, User, command, json};

use crate::fixture;

const CREATE_ROLE: &str = "MicroVMBuildRole";
const EXECUTION_ROLE: &str = "MicroVMExecutionRole";
const LAMBDA: &str = "lambda.amazonaws.com";

/// The beginning of every request to a thing of another account, and a body where the operation has one.
const OF_IMAGES: [(&str, &str, &str); 12] = [
    ("GET", "/2025-09-09/microvm-images/{image}", ""),
    ("PUT", "/2025-09-09/microvm-images/{image}", "{config}"),
    ("DELETE", "/2025-09-09/microvm-images/{image}", ""),
    ("GET", "/2025-09-09/microvm-images/{image}/versions", ""),
    ("GET", "/2025-09-09/microvm-images/{image}/versions/1.0", ""),
    ("PATCH", "/2025-09-09/microvm-images/{image}/versions/1.0", r#"{"status":"INACTIVE"}"#),
    ("DELETE", "/2025-09-09/microvm-images/{image}/versions/1.0", ""),
    ("GET", "/2025-09-09/microvm-images/{image}/versions/1.0/builds", ""),
    ("GET", "/2017-03-31/tags/{image}", ""),
    ("POST", "/2017-03-31/tags/{image}", r#"{"Tags":{"mine":"now"}}"#),
    ("DELETE", "/2017-03-31/tags/{image}?tagKeys=team", ""),
    ("POST", "/2025-09-09/microvms", r#"{"imageIdentifier":"{arn}"}"#),
];
const OF_MICROVMS: [(&str, &str, &str); 6] = [
    ("GET", "/2025-09-09/microvms/{id}", ""),
    ("DELETE", "/2025-09-09/microvms/{id}", ""),
    ("POST", "/2025-09-09/microvms/{id}/suspend", ""),
    ("POST", "/2025-09-09/microvms/{id}/resume", ""),
    (
        "POST",
        "/2025-09-09/microvms/{id}/auth-token",
        r#"{"expirationInMinutes":5,"allowedPorts":[{"allPorts":{}}]}"#,
    ),
    ("POST", "/2025-09-09/microvms/{id}/shell-auth-token", r#"{"expirationInMinutes":5}"#),
];
const OF_CONNECTORS: [(&str, &str, &str); 4] = [
    ("GET", "/2026-04-04/network-connectors/{connector}", ""),
    ("PUT", "/2026-04-04/network-connectors/{connector}", "{}"),
    ("DELETE", "/2026-04-04/network-connectors/{connector}", ""),
    ("GET", "/2026-04-04/network-connectors/{connector}/versions", ""),
];

pub(crate) fn accounts_are_strangers() {
    let server = fixture::shared();
    let stranger = User::of_new_account(&server, "stranger");
    assert_ne!(stranger.account(), server.variable("AWS_ACCOUNT_ID"));
    let image = fixture::probe(&server);
    let microvm = Microvm::run(&server, &image, &[]);
    let absent = image.arn.replace(":probe", ":absent");
    refused_alike(&stranger, &OF_IMAGES, &image.arn, &absent);
    let (id, other) = (microvm.id.as_str(), "microvm-00000000-0000-4000-8000-000000000000");
    refused_alike(&stranger, &OF_MICROVMS, id, other);
    connectors_are_strange(&server, &stranger);
    nothing_is_listed(&stranger);
    objects_are_strange(&server, &stranger);
    // A token opens one MicroVM, whoever holds it; here there is none to be had.
    assert_eq!(microvm.state(), "RUNNING");
    assert_eq!(image.get(&server)["state"], "CREATED");
    microvm.terminate();
}

/// What is there is refused in the very words in which what is not there is refused.
fn refused_alike(stranger: &User<'_>, requests: &[(&str, &str, &str)], there: &str, absent: &str) {
    for (method, path, body) in requests {
        let ask = |name: &str| {
            let fill = |text: &str| {
                let config = json!({
                    "baseImageArn": "arn:aws:lambda:us-east-1:aws:microvm-image:al2023-1",
                    "buildRoleArn": format!("arn:aws:iam::{}:role/{CREATE_ROLE}", stranger.account()),
                    "codeArtifact": {"uri": "s3://artifacts/probe.zip"},
                });
                let escaped = name.replace(':', "%3A");
                text.replace("{image}", &escaped)
                    .replace("{connector}", &escaped)
                    .replace("{id}", name)
                    .replace("{arn}", name)
                    .replace("{config}", &config.to_string())
            };
            let body = serde_json::from_str(&fill(body)).unwrap_or(Json::Null);
            let answer = stranger.api(method, &fill(path), &body);
            assert!(matches!(answer.status, 403 | 404), "{method} {path} of {name}: {answer:?}");
            let kind = answer.header("x-amzn-errortype").unwrap_or_default().to_owned();
            (answer.status, kind, answer.body.replace(name, "it"))
        };
        assert_eq!(ask(there), ask(absent), "{method} {path}: the answer tells which is there");
    }
}

fn connectors_are_strange(server: &Server, stranger: &User<'_>) {
    let configuration = json!({"VpcEgressConfiguration": {
        "SubnetIds": ["subnet-0a1b2c3d"], "SecurityGroupIds": [], "NetworkProtocol": "IPv4",
        "AssociatedComputeResourceTypes": ["MicroVm"],
    }});
    let create = ["lambda-core", "create-network-connector", "--name", "not-yours", "--configuration"];
    let made = server.aws(&[&create[..], &[&configuration.to_string()]].concat());
    let arn = made["Arn"].as_str().unwrap();
    let absent = arn.replace(made["Id"].as_str().unwrap(), "nc-00000000-0000-4000-8000-000000000000");
    refused_alike(stranger, &OF_CONNECTORS, arn, &absent);
    server.aws(&["lambda-core", "delete-network-connector", "--identifier", arn]);
}

fn nothing_is_listed(stranger: &User<'_>) {
    for (path, member) in [
        ("/2025-09-09/microvm-images", "items"),
        ("/2025-09-09/microvms", "items"),
        ("/2026-04-04/network-connectors", "NetworkConnectors"),
    ] {
        let answer = stranger.api("GET", path, &Json::Null).expect(200).json();
        assert_eq!(answer[member], json!([]), "{path}");
    }
}

fn objects_are_strange(server: &Server, stranger: &User<'_>) {
    let uri = server.upload("not-yours.txt", b"a secret");
    let elsewhere = server.scratch("stolen.txt");
    let elsewhere = elsewhere.to_str().unwrap();
    for arguments in [
        &["s3api", "get-object", "--bucket", "artifacts", "--key", "not-yours.txt", elsewhere][..],
        &["s3api", "put-object", "--bucket", "artifacts", "--key", "not-yours.txt"],
        &["s3api", "delete-object", "--bucket", "artifacts", "--key", "not-yours.txt"],
        &["s3api", "list-objects-v2", "--bucket", "artifacts"],
        &["s3api", "delete-bucket", "--bucket", "artifacts"],
    ] {
        let error = stranger.aws_error(arguments);
        assert!(error.contains("AccessDenied") && !error.contains("secret"), "{arguments:?}: {error}");
    }
    let buckets = stranger.aws(&["s3api", "list-buckets"]);
    assert_eq!(buckets["Buckets"], json!([]), "{buckets}");
    server.aws_text(&["s3", "rm", &uri]);
}

/// In AWS's words.
fn denial(user: &str, action: &str, resource: &str) -> String {
    format!(
        "User: {user} is not authorized to perform: {action} on resource: {resource} because no identity-based policy \
         allows the {action} action"
    )
}

pub(crate) fn a_user_may_do_what_its_policy_allows() {
    let server = fixture::shared();
    let root = User::root(&server);
    let image = fixture::probe(&server);
    let mut statements = vec![
        json!({"Effect": "Allow", "Action": ["lambda:GetMicrovm*", "lambda:RunMicrovm"], "Resource": image.arn}),
        json!({"Effect": "Allow", "Action": "lambda:*Microvm", "Resource": image.arn}),
        json!({"Effect": "Deny", "Action": "lambda:TerminateMicrovm", "Resource": "*"}),
    ];
    let user = root.new_user("restricted", &json!(statements));
    let arn = format!("arn:aws:iam::{}:user/restricted", root.account());
    let get = ["lambda-microvms", "get-microvm-image", "--image-identifier", &image.arn];
    assert_eq!(user.aws(&get)["name"], "probe");
    let error =
        user.aws_error(&["lambda-microvms", "delete-microvm-image", "--image-identifier", &image.arn]);
    assert!(error.contains(&denial(&arn, "lambda:DeleteMicrovmImage", &image.arn)), "{error}");
    let error = user.aws_error(&["lambda-microvms", "list-microvm-images"]);
    assert!(error.contains(&denial(&arn, "lambda:ListMicrovmImages", "*")), "{error}");

    // The connectors that nobody names are handed on too.
    let run = ["lambda-microvms", "run-microvm", "--image-identifier", &image.arn];
    let ingress = "arn:aws:lambda:us-east-1:aws:network-connector:aws-network-connector:HTTP_INGRESS";
    let error = user.aws_error(&run);
    assert!(error.contains(&denial(&arn, "lambda:PassNetworkConnector", ingress)), "{error}");
    statements.push(json!({"Effect": "Allow", "Action": "lambda:PassNetworkConnector", "Resource": "*"}));
    root.set_policy("restricted", &json!(statements));
    let microvm = user.aws(&run);
    let id = microvm["microvmId"].as_str().unwrap_or_else(|| panic!("{microvm}"));

    let error = user.aws_error(&["lambda-microvms", "terminate-microvm", "--microvm-identifier", id]);
    let explicit = format!(
        "User: {arn} is not authorized to perform: lambda:TerminateMicrovm on resource: {} with an explicit deny in an \
         identity-based policy",
        image.arn
    );
    assert!(error.contains(&explicit), "{error}");
    server.aws(&["lambda-microvms", "terminate-microvm", "--microvm-identifier", id]);

    // Roles are handed on by those alone who may.
    let role = format!("arn:aws:iam::{}:role/{EXECUTION_ROLE}", root.account());
    let error = user.aws_error(&[&run[..], &["--execution-role-arn", &role]].concat());
    assert!(error.contains(&denial(&arn, "iam:PassRole", &role)), "{error}");
    statements.push(json!({"Effect": "Allow", "Action": "iam:PassRole", "Resource": role, "Condition": {
        "StringEquals": {"iam:PassedToService": LAMBDA},
    }}));
    root.set_policy("restricted", &json!(statements));
    let microvm = user.aws(&[&run[..], &["--execution-role-arn", &role]].concat());
    let id = microvm["microvmId"].as_str().unwrap_or_else(|| panic!("{microvm}"));
    server.aws(&["lambda-microvms", "terminate-microvm", "--microvm-identifier", id]);
}

pub(crate) fn a_session_of_a_role_may_do_what_the_role_may() {
    let server = fixture::shared();
    let root = User::root(&server);
    let everyone = json!({"AWS": format!("arn:aws:iam::{}:root", root.account())});
    let listing = json!([{"Effect": "Allow", "Action": "lambda:ListMicrovms", "Resource": "*"}]);
    let role = root.new_role("lister", &everyone, &listing);
    let assuming = json!([{"Effect": "Allow", "Action": "sts:AssumeRole", "Resource": role}]);
    let user = root.new_user("assumer", &assuming);
    let denied = user.aws_error(&["lambda-microvms", "list-microvms"]);
    assert!(denied.contains("AccessDeniedException"), "{denied}");

    let session = user.assume(&role);
    let arn = format!("arn:aws:sts::{}:assumed-role/lister/e2e", root.account());
    assert_eq!(session.aws(&["sts", "get-caller-identity"])["Arn"], arn.as_str());
    assert!(session.aws(&["lambda-microvms", "list-microvms"])["items"].is_array());
    let error = session.aws_error(&["lambda-microvms", "list-microvm-images"]);
    assert!(error.contains(&denial(&arn, "lambda:ListMicrovmImages", "*")), "{error}");

    let other = root.new_role("others", &json!({"Service": LAMBDA}), &listing);
    let error = user.aws_error(&["sts", "assume-role", "--role-arn", &other, "--role-session-name", "e2e"]);
    assert!(error.contains("AccessDenied") && error.contains("sts:AssumeRole"), "{error}");
}

pub(crate) fn an_application_may_do_what_its_role_may() {
    let server = fixture::shared();
    let root = User::root(&server);
    let image = fixture::probe(&server);
    let readable = server.upload("for-the-role.txt", b"for the role");
    let secret = server.upload("for-nobody.txt", b"for nobody");
    let reading = json!([{
        "Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::artifacts/for-the-role.txt",
    }]);
    let role = root.new_role("reader", &json!({"Service": LAMBDA}), &reading);
    let microvm = Microvm::launch_as(&server, &image, Some(&role), &[]);
    microvm.wait("RUNNING");
    let document = credentials(&microvm);
    assert_lasts_55_minutes(&document, &microvm);
    let application =
        root.with_keys(&document["AccessKeyId"], &document["SecretAccessKey"], Some(&document["Token"]));
    let arn = format!("arn:aws:sts::{}:assumed-role/reader/{}", root.account(), microvm.id);
    assert_eq!(application.aws(&["sts", "get-caller-identity"])["Arn"], arn.as_str());
    let elsewhere = server.scratch("read-by-the-application");
    let elsewhere = elsewhere.to_str().unwrap();
    application.aws(&[
        "s3api",
        "get-object",
        "--bucket",
        "artifacts",
        "--key",
        "for-the-role.txt",
        elsewhere,
    ]);
    assert_eq!(std::fs::read_to_string(elsewhere).unwrap(), "for the role");
    let error = application.aws_error(&[
        "s3api",
        "get-object",
        "--bucket",
        "artifacts",
        "--key",
        "for-nobody.txt",
        elsewhere,
    ]);
    assert!(error.contains("AccessDenied"), "{error}");
    let error = application.aws_error(&["lambda-microvms", "list-microvm-images"]);
    assert!(error.contains(&denial(&arn, "lambda:ListMicrovmImages", "*")), "{error}");

    // What the application was given before its snapshot is the build role's, and is told to nobody afterwards.
    let before = microvm.json("/metadata/before");
    let before: Json = serde_json::from_str(before["text"].as_str().unwrap()).unwrap();
    let build = root.with_keys(&before["AccessKeyId"], &before["SecretAccessKey"], Some(&before["Token"]));
    let build = build.aws(&["sts", "get-caller-identity"])["Arn"].as_str().unwrap().to_owned();
    assert!(build.contains(&format!(":assumed-role/{CREATE_ROLE}/snapshot-")), "{build}");
    assert_ne!(before["AccessKeyId"], document["AccessKeyId"]);

    microvm.suspend();
    microvm.resume();
    assert_eq!(credentials(&microvm), document, "unexpired credentials are those of before the sleep");
    microvm.terminate();

    let nobody = Microvm::launch_as(&server, &image, None, &[]);
    nobody.wait("RUNNING");
    let listing = nobody.json("/metadata?path=/latest/meta-data/");
    assert_eq!(listing["text"], "placement/\ntags/", "without a role: {listing}");
    assert_eq!(nobody.json(&format!("/metadata?path={CREDENTIALS}"))["status"], 404);
    nobody.terminate();
    server.aws_text(&["s3", "rm", &readable]);
    server.aws_text(&["s3", "rm", &secret]);
}

const CREDENTIALS: &str = "/latest/meta-data/iam/security-credentials/";

fn credentials(microvm: &Microvm<'_>) -> Json {
    let answer = microvm.json(&format!("/metadata?path={CREDENTIALS}execution_role"));
    assert_eq!(answer["status"], 200, "{answer}");
    serde_json::from_str(answer["text"].as_str().unwrap()).unwrap()
}

/// From the launch on, in whole seconds.
fn assert_lasts_55_minutes(document: &Json, microvm: &Microvm<'_>) {
    let seconds = |field: &str| {
        let text = document[field].as_str().unwrap_or_else(|| panic!("no {field}: {document}"));
        let moment = command::must(Command::new("date").args(["--utc", "--date", text, "+%s"]));
        moment.trim().parse::<f64>().unwrap()
    };
    assert_eq!(seconds("Expiration") - seconds("LastUpdated"), 55.0 * 60.0, "{document}");
    let started = microvm.get()["startedAt"].as_f64().unwrap();
    assert!((seconds("LastUpdated") - started).abs() < 30.0, "not of the launch at {started}: {document}");
    assert_eq!((&document["Code"], &document["Type"]), (&json!("Success"), &json!("AWS-HMAC")));
}

pub(crate) fn a_build_reads_what_its_role_may_read() {
    let server = fixture::shared();
    let root = User::root(&server);
    let elsewhere = json!([{"Effect": "Allow", "Action": "s3:*", "Resource": "arn:aws:s3:::elsewhere/*"}]);
    let role = root.new_role("reads-nothing", &json!({"Service": LAMBDA}), &elsewhere);
    let request = ImageRequest::of(&server, "unreadable", &Artifact::probe()).hooks(Hooks::Disabled);
    let image = create(&server, &request, &role);
    let build = image.failed(&server);
    assert!(build["stateReason"].as_str().unwrap().contains("S3_ACCESS_DENIED"), "{build}");
    image.delete(&server);

    // A role that the service may not assume is no role for it.
    let everyone = json!({"AWS": format!("arn:aws:iam::{}:root", root.account())});
    let role = root.new_role("not-for-lambda", &everyone, &elsewhere);
    let error = server.aws_error(&words(&arguments(&server, &request, &role)));
    assert!(error.contains("We were unable to assume the role provided"), "{error}");
}

fn create(server: &Server, request: &ImageRequest<'_>, role: &str) -> Image {
    let made = server.aws(&words(&arguments(server, request, role)));
    Image { arn: made["imageArn"].as_str().unwrap().to_owned() }
}

fn arguments(server: &Server, request: &ImageRequest<'_>, role: &str) -> Vec<String> {
    let mut all: Vec<String> =
        ["lambda-microvms", "create-microvm-image", "--name", request.name].map(str::to_owned).to_vec();
    let configuration = request.configuration(server);
    all.extend(
        configuration.into_iter().map(
            |word| {
                if word == server.build_role() { role.to_owned() } else { word }
            },
        ),
    );
    all
}

fn words(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}
