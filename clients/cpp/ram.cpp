#include "ram.h"

#include <climits>
#include <cstdint>
#include <cstring>
#include <map>
#include <utility>

#include "inference.grpc.pb.h"

namespace ram {
namespace {

// UNAVAILABLE (a full queue, no connection) is tried again, five times at most; throttling stops
// that for all calls of the channel while more than one in ten fails.
constexpr char kServiceConfig[] = R"({
  "methodConfig": [{
    "name": [{"service": "inference.GRPCInferenceService", "method": "ModelInfer"}],
    "retryPolicy": {"maxAttempts": 5, "initialBackoff": "0.2s", "maxBackoff": "2s", "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"]}
  }],
  "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1}
})";

// Adds an input; returns where its values go.
inference::InferTensorContents* Add(inference::ModelInferRequest* request, const char* name, const char* datatype,
                                    std::initializer_list<size_t> shape) {
  auto* input = request->add_inputs();
  input->set_name(name);
  input->set_datatype(datatype);
  for (size_t size : shape) input->add_shape(size);
  return input->mutable_contents();
}

// The element at `index` of a tensor of 4-byte numbers, little-endian as this machine must be.
template <typename Number>
Number At(const std::string& buffer, size_t index) {
  Number number;
  std::memcpy(&number, buffer.data() + sizeof number * index, sizeof number);
  return number;
}

// The elements of a BYTES tensor: a length of 4 bytes, little-endian, before each.
std::vector<std::string> ReadStrings(const std::string& buffer) {
  std::vector<std::string> texts;
  for (size_t at = 0; at < buffer.size(); at += 4 + texts.back().size()) {
    std::uint32_t length;
    std::memcpy(&length, buffer.data() + at, sizeof length);
    texts.push_back(buffer.substr(at + 4, length));
  }
  return texts;
}

// Rows are padded to the longest: `count` of each are tags. Outputs come in an order of the server's.
std::vector<std::vector<Tag>> ReadTags(const inference::ModelInferResponse& response, size_t rows) {
  std::map<std::string, std::string> raw;
  size_t width = 0;
  for (int i = 0; i < response.outputs_size(); ++i) {
    const auto& output = response.outputs(i);
    raw[output.name()] = response.raw_output_contents(i);
    if (output.name() == "tags") width = output.shape(1);
  }
  const auto names = ReadStrings(raw["tags"]), names_zh = ReadStrings(raw["tags_zh"]);
  std::vector<std::vector<Tag>> tags(rows);
  for (size_t row = 0; row < rows; ++row) {
    const size_t first = row * width, count = At<std::int32_t>(raw["count"], row);
    for (size_t at = first; at < first + count; ++at)
      tags[row].push_back({names[at], names_zh[at], At<float>(raw["scores"], at), At<std::int32_t>(raw["tag_ids"], at),
                           raw["known"].empty() || raw["known"][at] == 1});
  }
  return tags;
}

}  // namespace

struct Client::Stub {
  std::unique_ptr<inference::GRPCInferenceService::Stub> service;
};

Client::Client(const std::string& address, std::chrono::duration<double> timeout,
               const std::shared_ptr<grpc::ChannelCredentials>& credentials,
               std::map<std::string, std::string> headers)
    : timeout_(timeout), headers_(std::move(headers)) {
  grpc::ChannelArguments arguments;
  arguments.SetServiceConfigJSON(kServiceConfig);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 2000);
  arguments.SetMaxReceiveMessageSize(-1);
  // A request that does not fit into this is not tried again: the default is 256 KiB.
  arguments.SetInt(GRPC_ARG_PER_RPC_RETRY_BUFFER_SIZE, INT_MAX);
  auto channel = grpc::CreateCustomChannel(address, credentials, arguments);
  stub_.reset(new Stub{inference::GRPCInferenceService::NewStub(channel)});
}

Client::~Client() = default;

grpc::Status Client::TagImages(const std::vector<std::string>& images, const Options& options,
                               std::vector<std::vector<Tag>>* tags) {
  inference::ModelInferRequest request;
  const size_t rows = images.size();
  auto* image = Add(&request, "image", "BYTES", {rows, 1});
  for (const auto& bytes : images) image->add_bytes_contents(bytes);
  auto* threshold = options.threshold ? Add(&request, "threshold", "FP32", {rows, 1}) : nullptr;
  auto* top_k = options.top_k ? Add(&request, "top_k", "INT32", {rows, 1}) : nullptr;
  auto* exclude =
      options.exclude.empty() ? nullptr : Add(&request, "exclude", "BYTES", {rows, options.exclude.size()});
  for (size_t row = 0; row < rows; ++row) {
    if (threshold) threshold->add_fp32_contents(*options.threshold);
    if (top_k) top_k->add_int_contents(*options.top_k);
    for (const auto& name : options.exclude) exclude->add_bytes_contents(name);
  }
  const bool open = !options.labels.empty();
  if (open) {
    auto* labels = Add(&request, "labels", "BYTES", {options.labels.size()});
    for (const auto& name : options.labels) labels->add_bytes_contents(name);
    request.add_outputs()->set_name("known");
  }
  request.set_model_name(open ? "ram_open" : "ram");
  for (const char* name : {"tags", "tags_zh", "scores", "tag_ids", "count"}) request.add_outputs()->set_name(name);

  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() +
                       std::chrono::duration_cast<std::chrono::system_clock::duration>(timeout_));
  for (const auto& [name, value] : headers_) context.AddMetadata(name, value);
  inference::ModelInferResponse response;
  const grpc::Status status = stub_->service->ModelInfer(&context, request, &response);
  if (status.ok()) *tags = ReadTags(response, rows);
  return status;
}

}  // namespace ram
