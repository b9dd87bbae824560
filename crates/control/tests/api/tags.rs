//! Tags over HTTP (SPEC §2.8).

use serde_json::{Value, json};

use crate::bed::{IMAGES, OTHER, arn, bed, image, image_path, with};

fn tags_path(resource: &str) -> String {
    format!("/2017-03-31/tags/{}", resource.replace(':', "%3A"))
}

#[tokio::test]
async fn tags_are_merged_shown_and_removed() {
    let bed = bed().await;
    bed.built(&with(image("a"), json!({"tags": {"team": "blue", "stage": "test"}}))).await;
    let tags = tags_path(&arn("a"));
    let tagged = bed.call("POST", &tags, &json!({"Tags": {"team": "red", "cost": "7"}})).await;
    assert_eq!(tagged, (204, String::new(), Value::Null));
    assert_eq!(bed.get(&tags).await, json!({"Tags": {"team": "red", "stage": "test", "cost": "7"}}));
    let removed = bed.call("DELETE", &format!("{tags}?tagKeys=stage&tagKeys=team"), &Value::Null).await;
    assert_eq!(removed.0, 204);
    assert_eq!(bed.get(&image_path("a")).await["tags"], json!({"cost": "7"}));
}

#[tokio::test]
async fn what_cannot_be_tagged_is_refused_in_its_familys_manners() {
    let bed = bed().await;
    let call = async |resource: &str, body: Value| {
        let (status, kind, _) = bed.refused("POST", &tags_path(resource), &body).await;
        (status, kind)
    };
    let one = json!({"Tags": {"a": "b"}});
    assert_eq!(call(&arn("none"), one.clone()).await, (404, "ResourceNotFoundException".into()));
    let microvm =
        "arn:aws:lambda:us-east-1:123456789012:microvm:microvm-a991cd0b-3321-3e2c-a982-d5c4db52b17a";
    assert_eq!(call(microvm, one.clone()).await, (400, "ValidationException".into()));
    bed.built(&image("a")).await;
    let reserved = json!({"Tags": {"aws:x": "b"}});
    assert_eq!(call(&arn("a"), reserved).await, (400, "ValidationException".into()));
    let many: Value =
        (0..51).map(|n| (format!("k{n}"), json!("v"))).collect::<serde_json::Map<_, _>>().into();
    assert_eq!(call(&arn("a"), json!({"Tags": many})).await, (400, "ValidationException".into()));

    let connector =
        "arn:aws:lambda:us-east-1:123456789012:network-connector:nc-a991cd0b-3321-4e2c-a982-d5c4db52b17a";
    let (status, kind, body) = bed.call("POST", &tags_path(connector), &json!({"Tags": 5})).await;
    assert_eq!((status, kind.as_str()), (400, "SerializationException"), "{body}");
    let (status, kind, body) = bed.call("POST", &tags_path(connector), &json!({})).await;
    let invalid = (400, "InvalidParameterValueException", json!("User"));
    assert_eq!((status, kind.as_str(), body["Type"].clone()), invalid);
}

#[tokio::test]
async fn tags_of_what_is_leaving_or_anothers_stay_as_they_are() {
    let bed = bed().await;
    bed.built(&image("a")).await;
    let (status, kind, _) = bed.call_as(OTHER, "GET", &tags_path(&arn("a")), &Value::Null).await;
    assert_eq!((status, kind.as_str()), (403, "AccessDeniedException"));
    bed.done("DELETE", &image_path("a"), &Value::Null).await;
    let (status, kind, _) = bed.refused("POST", &tags_path(&arn("a")), &json!({"Tags": {"a": "b"}})).await;
    assert_eq!((status, kind.as_str()), (409, "ResourceConflictException"));
    assert_eq!(bed.get(&format!("{IMAGES}?nameFilter=a")).await["items"][0]["state"], "DELETING");
}
