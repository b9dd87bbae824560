// The lifecycle of an image and of a MicroVM, by the SDK for JavaScript. What it is made of stands in the environment.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import https from "node:https";
import { createRequire } from "node:module";
import { setTimeout as pause } from "node:timers/promises";

const { env } = process;
const sdk = createRequire(`${env.CLIENTS}/node/`)("@aws-sdk/client-lambda-microvms");
const client = new sdk.LambdaMicrovmsClient({ maxAttempts: 1 });

const BASE = { baseImageArn: env.BASE_IMAGE, buildRoleArn: env.BUILD_ROLE };
const [BUILD_SECONDS, SECONDS] = [900, 60];

const call = (operation, input) => client.send(new sdk[`${operation}Command`](input));

async function until(what, seconds, look) {
  const deadline = Date.now() + seconds * 1000;
  while (Date.now() < deadline) {
    if (await look()) return;
    await pause(100);
  }
  throw new Error(`${what}: not within ${seconds} s`);
}

const imageState = async (imageIdentifier) => (await call("GetMicrovmImage", { imageIdentifier })).state;
const microvmState = async (microvmIdentifier) => (await call("GetMicrovm", { microvmIdentifier })).state;

async function create() {
  const { imageArn } = await call("CreateMicrovmImage", {
    ...BASE,
    name: env.IMAGE_NAME,
    codeArtifact: { uri: env.ARTIFACT },
    resources: [{ minimumMemoryInMiB: 512 }],
    hooks: { port: 9000, microvmImageHooks: { ready: "ENABLED", readyTimeoutInSeconds: 300, validate: "DISABLED" } },
    tags: { kept: "yes" },
    clientToken: env.CREATE_TOKEN,
  });
  await until(`${imageArn} to be built`, BUILD_SECONDS, async () => !(await imageState(imageArn)).endsWith("ING"));
  assert.equal(await imageState(imageArn), "CREATED");
  return imageArn;
}

async function builds(imageIdentifier) {
  const found = [];
  const which = { imageIdentifier, imageVersion: "1.0" };
  for await (const page of sdk.paginateListMicrovmImageBuilds({ client }, which)) {
    for (const { buildId } of page.items) found.push(await call("GetMicrovmImageBuild", { ...which, buildId }));
  }
  return found;
}

async function versions(imageIdentifier) {
  const { items } = await call("ListMicrovmImageVersions", { imageIdentifier });
  assert.deepEqual(items.map((item) => item.imageVersion), ["1.0"]);
  assert(items[0].createdAt instanceof Date);
  const version = await call("GetMicrovmImageVersion", { imageIdentifier, imageVersion: "1.0" });
  assert.deepEqual([version.state, version.status], ["SUCCESSFUL", "ACTIVE"]);
  for (const build of await builds(imageIdentifier)) assert.equal(build.buildState, "SUCCESSFUL");
}

async function run(imageIdentifier) {
  const input = { imageIdentifier, maximumDurationInSeconds: 600, clientToken: randomUUID() };
  const { microvmId, endpoint, startedAt } = await call("RunMicrovm", input);
  assert(startedAt instanceof Date);
  assert.equal((await call("RunMicrovm", input)).microvmId, microvmId);
  await until(`${microvmId} to run`, SECONDS, async () => (await microvmState(microvmId)) === "RUNNING");
  const ids = [];
  for await (const page of sdk.paginateListMicrovms({ client }, { imageIdentifier })) {
    ids.push(...page.items.map((item) => item.microvmId));
  }
  assert(ids.includes(microvmId));
  return [microvmId, endpoint];
}

async function request(microvmIdentifier, endpoint) {
  const allowedPorts = [{ port: 8080 }];
  const { authToken } = await call("CreateMicrovmAuthToken", { microvmIdentifier, expirationInMinutes: 5, allowedPorts });
  const status = await new Promise((resolve, reject) => {
    const sent = https.get(`https://${endpoint}/`, { headers: authToken, timeout: SECONDS * 1000 }, (answer) => {
      answer.resume();
      answer.on("end", () => resolve(answer.statusCode));
    });
    sent.on("error", reject);
  });
  assert.equal(status, 200);
}

async function sleepAndWake(microvmIdentifier) {
  await call("SuspendMicrovm", { microvmIdentifier });
  await until("the sleep", SECONDS, async () => (await microvmState(microvmIdentifier)) === "SUSPENDED");
  await call("ResumeMicrovm", { microvmIdentifier });
  await until("the wake", SECONDS, async () => (await microvmState(microvmIdentifier)) === "RUNNING");
}

async function switchOffAndOn(imageIdentifier) {
  const which = { imageIdentifier, imageVersion: "1.0" };
  await call("UpdateMicrovmImageVersion", { ...which, status: "INACTIVE" });
  await assert.rejects(call("RunMicrovm", { imageIdentifier }), (error) => {
    assert(error instanceof sdk.ResourceNotFoundException);
    assert.equal(error.$metadata.httpStatusCode, 404);
    return true;
  });
  assert.equal((await call("UpdateMicrovmImageVersion", { ...which, status: "ACTIVE" })).status, "ACTIVE");
}

async function tag(Resource) {
  await call("TagResource", { Resource, Tags: { client: "node" } });
  assert.deepEqual((await call("ListTags", { Resource })).Tags, { kept: "yes", client: "node" });
  await call("UntagResource", { Resource, TagKeys: ["client"] });
  assert.deepEqual((await call("GetMicrovmImage", { imageIdentifier: Resource })).tags, { kept: "yes" });
}

async function terminate(microvmIdentifier) {
  await call("TerminateMicrovm", { microvmIdentifier });
  await until("the end", SECONDS, async () => (await microvmState(microvmIdentifier)) === "TERMINATED");
  assert((await call("GetMicrovm", { microvmIdentifier })).terminatedAt instanceof Date);
}

async function failAndDelete() {
  const codeArtifact = { uri: "s3://artifacts/there-is-no-such-key.zip" };
  const { imageArn } = await call("CreateMicrovmImage", { ...BASE, name: env.DOOMED_NAME, codeArtifact });
  await until("the failure", SECONDS, async () => (await imageState(imageArn)) === "CREATE_FAILED");
  assert.match((await builds(imageArn))[0].stateReason, /there-is-no-such-key.zip/);
  await call("DeleteMicrovmImage", { imageIdentifier: imageArn });
  await until(`${imageArn} to be gone`, SECONDS, () =>
    imageState(imageArn).then(() => false, (error) => error instanceof sdk.ResourceNotFoundException),
  );
}

const image = await create();
await versions(image);
const [microvm, host] = await run(image);
await request(microvm, host);
await sleepAndWake(microvm);
await request(microvm, host);
await switchOffAndOn(image);
await tag(image);
await terminate(microvm);
await failAndDelete();
