//! What the HTTP side calls: one function per operation, implemented by whoever owns the state.

use api::*;
use async_trait::async_trait;
use ids::AccountId;

/// Access keys.
pub trait Keys: Send + Sync + 'static {
    /// The owner and the secret of an access key.
    fn secret(&self, access_key_id: &str) -> Option<(AccountId, String)>;
}

macro_rules! service {
    ($($function:ident($request:ty);)+) => {
        /// The operations. Requests are validated already; `account` has been authenticated.
        #[async_trait]
        #[allow(missing_docs)] // Each is the operation of its name.
        pub trait Service: Send + Sync + 'static {
            $(async fn $function(
                &self,
                account: AccountId,
                request: $request,
            ) -> Result<<$request as Request>::Response, Error>;)+
        }
    };
}

service! {
    create_microvm_image(CreateMicrovmImageRequest);
    update_microvm_image(UpdateMicrovmImageRequest);
    get_microvm_image(GetMicrovmImageRequest);
    list_microvm_images(ListMicrovmImagesRequest);
    delete_microvm_image(DeleteMicrovmImageRequest);
    get_microvm_image_version(GetMicrovmImageVersionRequest);
    list_microvm_image_versions(ListMicrovmImageVersionsRequest);
    get_microvm_image_build(GetMicrovmImageBuildRequest);
    list_microvm_image_builds(ListMicrovmImageBuildsRequest);
    list_managed_microvm_images(ListManagedMicrovmImagesRequest);
    run_microvm(RunMicrovmRequest);
    get_microvm(GetMicrovmRequest);
    list_microvms(ListMicrovmsRequest);
    suspend_microvm(SuspendMicrovmRequest);
    resume_microvm(ResumeMicrovmRequest);
    terminate_microvm(TerminateMicrovmRequest);
    create_microvm_auth_token(CreateMicrovmAuthTokenRequest);
}
