//! The API inside a MicroVM, where `networks.toml` has it.

use rekindle_e2e::{Artifact, Hooks, ImageRequest, Microvm, User, json};

use crate::fixture;

const NO_EGRESS: &str = "arn:aws:lambda:us-east-1:aws:network-connector:aws-network-connector:NO_EGRESS";

/// With nothing but the variables that every image has, whatever else the MicroVM may reach, in every life and after a restart
/// of the server.
pub(crate) fn boto3_in_a_guest_may_do_what_its_role_may() {
    let mut server = fixture::exclusive();
    let (id, image) = {
        let root = User::root(&server);
        server.upload("for-boto3.txt", b"for boto3");
        server.upload("not-for-boto3.txt", b"not for boto3");
        let reading = json!([{
            "Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::artifacts/for-boto3.txt",
        }]);
        let role = root.new_role("boto3", &json!({"Service": "lambda.amazonaws.com"}), &reading);
        let image =
            ImageRequest::of(&server, "boto", &Artifact::boto()).hooks(Hooks::Ready(300)).create(&server);
        let image = image.built(&server);
        let no_egress = ["--egress-network-connectors", NO_EGRESS];
        let microvm = Microvm::launch_as(&server, &image, Some(&role), &no_egress);
        microvm.wait("RUNNING");
        assert_eq!(microvm.json("/environment")["answer"]["AWS_ENDPOINT_URL"], "http://169.254.77.1");
        assert_acts_as_its_role(&microvm, "launched");
        microvm.suspend();
        microvm.resume();
        assert_acts_as_its_role(&microvm, "after a sleep");
        (microvm.id, image)
    };
    server.kill();
    server.restart();
    let microvm = Microvm::of(&server, &id);
    assert_acts_as_its_role(&microvm, "adopted");
    microvm.terminate();
    image.delete(&server);
}

fn assert_acts_as_its_role(microvm: &Microvm<'_>, life: &str) {
    let account = User::root(microvm.server()).account().to_owned();
    let arn = format!("arn:aws:sts::{account}:assumed-role/boto3/{}", microvm.id);
    assert_eq!(microvm.json("/caller"), json!({"answer": arn}), "{life}");
    let object = |key: &str| microvm.json(&format!("/object?bucket=artifacts&key={key}"));
    assert_eq!(object("for-boto3.txt"), json!({"answer": "for boto3"}), "{life}");
    assert_eq!(object("not-for-boto3.txt"), json!({"error": "AccessDenied"}), "{life}");
    // Nobody is anybody by where he calls from.
    for path in ["/2025-09-09/microvms", "/", "/artifacts/for-boto3.txt"] {
        assert_eq!(microvm.json(&format!("/status?path={path}")), json!({"answer": 403}), "{life}: {path}");
    }
}
