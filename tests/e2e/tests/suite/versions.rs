//! Versions of an image that are deleted while the image stays.

use rekindle_e2e::{Artifact, Hooks, ImageRequest, Microvm, Server, json, microvm, until};

use crate::fixture;

fn which<'a>(arn: &'a str, version: &'a str) -> [&'a str; 4] {
    ["--image-identifier", arn, "--image-version", version]
}

fn delete(server: &Server, arn: &str, version: &str) {
    let deleted = server
        .aws(&[&["lambda-microvms", "delete-microvm-image-version"][..], &which(arn, version)].concat());
    assert_eq!(deleted["state"], "DELETING", "{deleted}");
}

pub(crate) fn a_version_goes_with_its_files_and_the_last_one_stays() {
    let server = fixture::shared();
    let request = ImageRequest::of(&server, "versions", &Artifact::probe());
    let image = request.create(&server).built(&server);
    let arn = image.arn.as_str();
    let microvm = Microvm::run(&server, &image, &[]);

    // A second version, which fails before any VM is started.
    let artifact = Artifact::new().file("app/Dockerfile", "FROM scratch\n").zip();
    let uri = server.upload("no-dockerfile-either.zip", &artifact);
    let second = ImageRequest {
        name: "versions",
        uri,
        hooks: Hooks::Disabled,
        variables: json!({}),
        memory_mib: 512,
        all_capabilities: false,
    };
    image.update(&second, &server);
    assert_eq!(image.get(&server)["state"], "UPDATE_FAILED");

    let refused = [&["lambda-microvms", "delete-microvm-image-version"][..], &which(arn, "1.0")].concat();
    let in_use = server.aws_error(&refused);
    assert!(in_use.contains("ConflictException") && in_use.contains("running MicroVMs"), "{in_use}");
    microvm.terminate();
    delete(&server, arn, "1.0");
    until("version 1.0 to be gone", microvm::SETTLE, || {
        let state = image.get(&server)["state"].as_str().unwrap().to_owned();
        assert!(["UPDATING", "UPDATED"].contains(&state.as_str()), "{state}");
        (state == "UPDATED").then_some(())
    });
    let left = server.aws(&["lambda-microvms", "list-microvm-image-versions", "--image-identifier", arn]);
    let left = left["items"].as_array().unwrap();
    assert_eq!((left.len(), left[0]["imageVersion"].as_str()), (1, Some("2.0")));
    let account = arn.split(':').nth(4).unwrap();
    let files = server.data_dir().join(format!("images/{account}-us-east-1/versions"));
    assert!(!files.join("1.0").exists(), "its files are still there");
    let only = [&["lambda-microvms", "delete-microvm-image-version"][..], &which(arn, "2.0")].concat();
    let only = server.aws_error(&only);
    assert!(only.contains("delete the image instead"), "{only}");
    image.delete(&server);
}
