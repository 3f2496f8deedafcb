// Command client calls a running stack with generated code and validates requests before they are sent.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"log"
	"os"
	"time"

	"buf.build/go/protovalidate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	definitionv1 "optaic.dev/go/optaic/definition/v1"
	instancev1 "optaic.dev/go/optaic/instance/v1"
	lineagev1 "optaic.dev/go/optaic/lineage/v1"
	runv1 "optaic.dev/go/optaic/run/v1"
	statusv1 "optaic.dev/go/optaic/status/v1"
)

type answer struct {
	Definitions []string `json:"definitions"`
	Project     string   `json:"project"`
	Statuses    int      `json:"statuses"`
	Invalid     string   `json:"invalid"`
	Refused     string   `json:"refused"`
	Missing     string   `json:"missing"`
}

func connect(service string) *grpc.ClientConn {
	connection, err := grpc.NewClient(
		os.Getenv("OPTAIC_"+service+"_ADDRESS"),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
	)
	if err != nil {
		log.Fatal(err)
	}
	return connection
}

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+os.Getenv("OPTAIC_TOKEN"))
	var found answer

	definitions := definitionv1.NewDefinitionServiceClient(connect("INSTANCE"))
	listed, err := definitions.ListDefinitions(ctx, &definitionv1.ListDefinitionsRequest{})
	if err != nil {
		log.Fatal(err)
	}
	for _, definition := range listed.GetDefinitions() {
		found.Definitions = append(found.Definitions, definition.GetName())
	}

	instances := instancev1.NewInstanceServiceClient(connect("INSTANCE"))
	project, err := instances.CreateProject(ctx, &instancev1.CreateProjectRequest{
		Project: &instancev1.Project{Name: os.Args[1]},
	})
	if err != nil {
		log.Fatal(err)
	}
	found.Project = project.GetName()

	statuses := statusv1.NewStatusServiceClient(connect("STATUS"))
	states, err := statuses.ListInstanceStatuses(
		ctx, &statusv1.ListInstanceStatusesRequest{ProjectId: project.GetProjectId()},
	)
	if err != nil {
		log.Fatal(err)
	}
	found.Statuses = len(states.GetInstanceStatuses())

	request := &runv1.GetRunRequest{RunId: "no uuid"}
	var invalid *protovalidate.ValidationError
	if err := protovalidate.Validate(request); errors.As(err, &invalid) {
		found.Invalid = protovalidate.FieldPathString(invalid.Violations[0].Proto.GetField())
	}
	_, err = runv1.NewRunServiceClient(connect("RUN")).GetRun(ctx, request)
	found.Refused = status.Code(err).String()
	_, err = lineagev1.NewLineageServiceClient(connect("LINEAGE")).GetFlowState(
		ctx, &lineagev1.GetFlowStateRequest{},
	)
	found.Missing = status.Code(err).String()

	if err := json.NewEncoder(os.Stdout).Encode(found); err != nil {
		log.Fatal(err)
	}
}
