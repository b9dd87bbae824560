//! Which shell there is in an image that lacks the usual one, or has none.

use agent_proto::host::CallError;
use agent_proto::{ShellInput, ShellOutput};

use crate::machines::{Bench, Image};
use crate::session::Guest;

pub(crate) async fn fall_back(bench: &Bench, image: &mut Image) {
    image.config.cmd =
        ["sh", "-c", "rm /bin/bash && echo without && exec sleep 1000"].map(String::from).to_vec();
    let guest = bench.start("shells", image, false).await;
    guest.printed("without").await;
    let shown = converse(&guest, "echo \"[$0]\"; rm /bin/sh; exit\n").await;
    assert!(shown.contains("[sh]"), "{shown}");
    let shown = converse(&guest, "").await;
    assert!(shown.contains("the image has neither"), "{shown}");
    guest.power_off().await;
}

/// What a shell shows that is typed into, until it has ended.
async fn converse(guest: &Guest, keys: &str) -> String {
    let (mut keyboard, mut screen) = match guest.shell().await {
        Ok(ends) => ends,
        Err(CallError::Refused(why)) => return why,
        Err(error) => panic!("no shell: {error}"),
    };
    keyboard.send(&ShellInput::Keys(keys.into())).await.unwrap();
    let mut shown = String::new();
    while let Some(ShellOutput::Bytes(bytes)) = screen.next().await.unwrap() {
        shown += &String::from_utf8_lossy(&bytes);
    }
    shown
}
