import build.buf.protovalidate.ValidatorFactory;
import com.google.protobuf.Message;
import dev.optaic.definition.v1.Definition;
import dev.optaic.definition.v1.ListDefinitionsRequest;
import dev.optaic.definition.v1.ListDefinitionsResponse;
import dev.optaic.instance.v1.CreateProjectRequest;
import dev.optaic.instance.v1.Project;
import dev.optaic.lineage.v1.FlowState;
import dev.optaic.lineage.v1.GetFlowStateRequest;
import dev.optaic.run.v1.GetRunRequest;
import dev.optaic.run.v1.Run;
import dev.optaic.status.v1.ListInstanceStatusesRequest;
import dev.optaic.status.v1.ListInstanceStatusesResponse;
import io.grpc.CallOptions;
import io.grpc.ClientInterceptors;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.ProtoUtils;
import io.grpc.stub.ClientCalls;
import io.grpc.stub.MetadataUtils;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;

/** Calls a running stack with generated code and validates requests before they are sent. */
public final class Client {
  private Client() {}

  /** Calls one method of a service; `sample` is any value of the answer's type. */
  private static <Q extends Message, A extends Message> A call(
      String service, String method, Q request, A sample) throws InterruptedException {
    var address = System.getenv("OPTAIC_" + service + "_ADDRESS");
    var headers = new Metadata();
    headers.put(
        Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER),
        "Bearer " + System.getenv("OPTAIC_TOKEN"));
    @SuppressWarnings("unchecked")
    var descriptor =
        MethodDescriptor.<Q, A>newBuilder()
            .setType(MethodDescriptor.MethodType.UNARY)
            .setFullMethodName(method)
            .setRequestMarshaller(ProtoUtils.marshaller((Q) request.getDefaultInstanceForType()))
            .setResponseMarshaller(ProtoUtils.marshaller(sample))
            .build();
    ManagedChannel channel =
        Grpc.newChannelBuilder(address, InsecureChannelCredentials.create()).build();
    try {
      return ClientCalls.blockingUnaryCall(
          ClientInterceptors.intercept(
              channel, MetadataUtils.newAttachHeadersInterceptor(headers)),
          descriptor,
          CallOptions.DEFAULT.withDeadlineAfter(30, TimeUnit.SECONDS),
          request);
    } finally {
      channel.shutdownNow().awaitTermination(5, TimeUnit.SECONDS);
    }
  }

  private static String refusal(String service, String method, Message request, Message sample)
      throws InterruptedException {
    try {
      call(service, method, request, sample);
      return "";
    } catch (StatusRuntimeException error) {
      return error.getStatus().getCode().name();
    }
  }

  /** Prints one JSON object. */
  public static void main(String[] arguments) throws Exception {
    var definitions =
        call(
            "INSTANCE",
            "optaic.definition.v1.DefinitionService/ListDefinitions",
            ListDefinitionsRequest.getDefaultInstance(),
            ListDefinitionsResponse.getDefaultInstance());
    var project =
        call(
            "INSTANCE",
            "optaic.instance.v1.InstanceService/CreateProject",
            CreateProjectRequest.newBuilder()
                .setProject(Project.newBuilder().setName(arguments[0]))
                .build(),
            Project.getDefaultInstance());
    var statuses =
        call(
            "STATUS",
            "optaic.status.v1.StatusService/ListInstanceStatuses",
            ListInstanceStatusesRequest.newBuilder().setProjectId(project.getProjectId()).build(),
            ListInstanceStatusesResponse.getDefaultInstance());
    var request = GetRunRequest.newBuilder().setRunId("no uuid").build();
    var violation = ValidatorFactory.newBuilder().build().validate(request).getViolations().get(0);
    System.out.printf(
        "{\"definitions\": [%s], \"project\": \"%s\", \"statuses\": %d, \"invalid\": \"%s\","
            + " \"refused\": \"%s\", \"missing\": \"%s\"}%n",
        definitions.getDefinitionsList().stream()
            .map(Definition::getName)
            .map(name -> '"' + name + '"')
            .collect(Collectors.joining(", ")),
        project.getName(),
        statuses.getInstanceStatusesCount(),
        violation.toProto().getField().getElements(0).getFieldName(),
        refusal(
            "RUN", "optaic.run.v1.RunService/GetRun", request, Run.getDefaultInstance()),
        refusal(
            "LINEAGE",
            "optaic.lineage.v1.LineageService/GetFlowState",
            GetFlowStateRequest.getDefaultInstance(),
            FlowState.getDefaultInstance()));
  }
}
