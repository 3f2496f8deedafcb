module example.com/client

go 1.25

replace optaic.dev/go => ./optaic

require (
	buf.build/go/protovalidate v1.4.0
	google.golang.org/grpc v1.85.0
	google.golang.org/protobuf v1.36.12
	optaic.dev/go v0.0.0
)
