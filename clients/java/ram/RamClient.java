package ram;

import com.google.protobuf.ByteString;
import inference.GRPCInferenceServiceGrpc;
import inference.InferTensorContents;
import inference.ModelInferRequest;
import inference.ModelInferResponse;
import io.grpc.ChannelCredentials;
import io.grpc.Grpc;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.MetadataUtils;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;

/** Tags images through Triton's gRPC service: one connection, to be shared between threads. */
public final class RamClient implements AutoCloseable {
  /**
   * A thing in an image: score is 0 to 1; id its line in the served tag lists, from 0, or its position in the labels;
   * known whether the served tag lists have it, as only labels can bring others.
   */
  public record Tag(String name, String nameZh, float score, int id, boolean known) {}

  /**
   * What a request may set. threshold: 0 to 1, or null for each tag's own. topK: maximum number of tags; null and 0 mean
   * no limit. exclude: names to leave out, not together with labels. labels: the tags to look for, if there are any.
   */
  public record Options(Float threshold, Integer topK, List<String> exclude, List<String> labels) {
    public static final Options NONE = new Options(null, null, List.of(), List.of());
  }

  // UNAVAILABLE (a full queue, no connection) is tried again, five times at most; throttling stops that for all calls of
  // the channel while more than one in ten fails.
  private static final Map<String, Object> SERVICE_CONFIG = Map.of(
      "methodConfig", List.of(Map.of(
          "name", List.of(Map.of("service", "inference.GRPCInferenceService", "method", "ModelInfer")),
          "retryPolicy", Map.of("maxAttempts", 5.0, "initialBackoff", "0.2s", "maxBackoff", "2s",
              "backoffMultiplier", 2.0, "retryableStatusCodes", List.of("UNAVAILABLE")))),
      "retryThrottling", Map.of("maxTokens", 10.0, "tokenRatio", 0.1));

  private final ManagedChannel channel;
  private final double timeout;

  /**
   * @param address host:port of Triton's gRPC endpoint, or of a gateway before it
   * @param timeout seconds that a call may take, retries included
   * @param credentials io.grpc's InsecureChannelCredentials or TlsChannelCredentials
   * @param headers what goes with every call, such as a gateway's key
   */
  public RamClient(String address, double timeout, ChannelCredentials credentials, Map<String, String> headers) {
    this.timeout = timeout;
    var metadata = new Metadata();
    headers.forEach((name, value) -> metadata.put(Metadata.Key.of(name, Metadata.ASCII_STRING_MARSHALLER), value));
    channel = Grpc.newChannelBuilder(address, credentials)
        .intercept(MetadataUtils.newAttachHeadersInterceptor(metadata))
        .enableRetry()
        .defaultServiceConfig(SERVICE_CONFIG)
        .maxInboundMessageSize(Integer.MAX_VALUE)
        // A request that does not fit into these is not tried again: the defaults are 1 and 16 MiB.
        .perRpcBufferLimit(Integer.MAX_VALUE)
        .retryBufferSize(Integer.MAX_VALUE)
        .build();
  }

  /** The tags of each of up to 32 encoded images (JPEG, PNG, …), highest score first, in one request. */
  public List<List<Tag>> tag(List<byte[]> images, Options options) throws StatusRuntimeException {
    int rows = images.size();
    boolean open = !options.labels().isEmpty();
    var request = ModelInferRequest.newBuilder().setModelName(open ? "ram_open" : "ram");
    var contents = InferTensorContents.newBuilder();
    for (byte[] image : images) contents.addBytesContents(ByteString.copyFrom(image));
    add(request, "image", "BYTES", List.of(rows, 1), contents);
    if (options.threshold() != null) {
      contents = InferTensorContents.newBuilder().addAllFp32Contents(Collections.nCopies(rows, options.threshold()));
      add(request, "threshold", "FP32", List.of(rows, 1), contents);
    }
    if (options.topK() != null) {
      contents = InferTensorContents.newBuilder().addAllIntContents(Collections.nCopies(rows, options.topK()));
      add(request, "top_k", "INT32", List.of(rows, 1), contents);
    }
    if (!options.exclude().isEmpty()) {
      contents = InferTensorContents.newBuilder();
      for (int row = 0; row < rows; row++) contents.addAllBytesContents(utf8(options.exclude()));
      add(request, "exclude", "BYTES", List.of(rows, options.exclude().size()), contents);
    }
    if (open) {
      contents = InferTensorContents.newBuilder().addAllBytesContents(utf8(options.labels()));
      add(request, "labels", "BYTES", List.of(options.labels().size()), contents);
      request.addOutputsBuilder().setName("known");
    }
    for (String name : List.of("tags", "tags_zh", "scores", "tag_ids", "count")) {
      request.addOutputsBuilder().setName(name);
    }
    var stub = GRPCInferenceServiceGrpc.newBlockingStub(channel);
    long milliseconds = Math.round(1000 * timeout);
    return readTags(stub.withDeadlineAfter(milliseconds, TimeUnit.MILLISECONDS).modelInfer(request.build()), rows);
  }

  @Override
  public void close() {
    channel.shutdownNow();
  }

  private static void add(ModelInferRequest.Builder request, String name, String datatype, List<Integer> shape,
      InferTensorContents.Builder contents) {
    var input = request.addInputsBuilder().setName(name).setDatatype(datatype).setContents(contents);
    for (int size : shape) input.addShape(size);
  }

  private static List<ByteString> utf8(List<String> names) {
    return names.stream().map(ByteString::copyFromUtf8).toList();
  }

  /** The elements of a BYTES tensor: a length of 4 bytes, little-endian, before each. */
  private static List<String> readStrings(ByteString raw) {
    var texts = new ArrayList<String>();
    for (int at = 0; at < raw.size(); ) {
      int length = numbers(raw).getInt(at);
      texts.add(raw.substring(at + 4, at + 4 + length).toStringUtf8());
      at += 4 + length;
    }
    return texts;
  }

  private static ByteBuffer numbers(ByteString raw) {
    return raw.asReadOnlyByteBuffer().order(ByteOrder.LITTLE_ENDIAN);
  }

  /** Rows are padded to the longest: count of each are tags. Outputs come in an order of the server's. */
  private static List<List<Tag>> readTags(ModelInferResponse response, int rows) {
    var raw = new HashMap<String, ByteString>();
    int width = 0;
    for (int i = 0; i < response.getOutputsCount(); i++) {
      var output = response.getOutputs(i);
      raw.put(output.getName(), response.getRawOutputContents(i));
      if (output.getName().equals("tags")) width = (int) output.getShape(1);
    }
    List<String> names = readStrings(raw.get("tags")), namesZh = readStrings(raw.get("tags_zh"));
    ByteBuffer scores = numbers(raw.get("scores")), ids = numbers(raw.get("tag_ids")), count = numbers(raw.get("count"));
    ByteString known = raw.get("known");
    var answers = new ArrayList<List<Tag>>();
    for (int row = 0; row < rows; row++) {
      var tags = new ArrayList<Tag>();
      int first = row * width;
      for (int at = first; at < first + count.getInt(4 * row); at++) {
        boolean isKnown = known == null || known.byteAt(at) == 1;
        tags.add(new Tag(names.get(at), namesZh.get(at), scores.getFloat(4 * at), ids.getInt(4 * at), isKnown));
      }
      answers.add(tags);
    }
    return answers;
  }
}
