// Calls a running stack with generated code and validates requests before they are sent.
import { create } from "@bufbuild/protobuf";
import { createValidator } from "@bufbuild/protovalidate";
import { Code, ConnectError, createClient, type Interceptor } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";

import { DefinitionService } from "./gen/optaic/definition/v1/definition_service_pb.js";
import { InstanceService } from "./gen/optaic/instance/v1/instance_service_pb.js";
import { LineageService } from "./gen/optaic/lineage/v1/lineage_service_pb.js";
import { GetRunRequestSchema, RunService } from "./gen/optaic/run/v1/run_service_pb.js";
import { StatusService } from "./gen/optaic/status/v1/status_service_pb.js";

const authorize: Interceptor = (next) => (request) => {
  request.header.set("authorization", `Bearer ${process.env.OPTAIC_TOKEN}`);
  return next(request);
};

function transport(service: string) {
  const address = process.env[`OPTAIC_${service}_ADDRESS`];
  return createGrpcTransport({ baseUrl: `http://${address}`, interceptors: [authorize], defaultTimeoutMs: 30_000 });
}

async function refusal(call: Promise<unknown>): Promise<string> {
  try {
    await call;
    return "";
  } catch (error) {
    return Code[ConnectError.from(error).code];
  }
}

const definitions = await createClient(DefinitionService, transport("INSTANCE")).listDefinitions({});
const project = await createClient(InstanceService, transport("INSTANCE")).createProject({
  project: { name: process.argv[2] },
});
const statuses = await createClient(StatusService, transport("STATUS")).listInstanceStatuses({
  projectId: project.projectId,
});
const request = create(GetRunRequestSchema, { runId: "no uuid" });
const checked = createValidator().validate(GetRunRequestSchema, request);
const first = checked.violations?.[0]?.field[0];

console.log(
  JSON.stringify({
    definitions: definitions.definitions.map((definition) => definition.name),
    project: project.name,
    statuses: statuses.instanceStatuses.length,
    invalid: first?.kind === "field" ? first.name : "",
    refused: await refusal(createClient(RunService, transport("RUN")).getRun(request)),
    missing: await refusal(createClient(LineageService, transport("LINEAGE")).getFlowState({})),
  }),
);
