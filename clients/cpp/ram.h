// Tags images through Triton's gRPC service.
#pragma once
#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <grpcpp/grpcpp.h>

namespace ram {

// A thing in an image.
struct Tag {
  std::string name, name_zh;  // UTF-8
  float score;                // 0 to 1
  int id;                     // line in the served tag lists, from 0; with labels the position in them
  bool known;                 // whether the served tag lists have it; only labels can bring others
};

struct Options {
  std::optional<float> threshold;    // 0 to 1; else each tag has its own
  std::optional<int> top_k;          // maximum number of tags; 0 means no limit
  std::vector<std::string> exclude;  // names to leave out, English or Chinese; not with labels
  std::vector<std::string> labels;   // the tags to look for, instead of all that the server knows
};

// One connection, to be shared between threads.
class Client {
 public:
  // `headers` go with every call, such as a gateway's key; their names are lower-case.
  explicit Client(const std::string& address = "localhost:8001",
                  std::chrono::duration<double> timeout = std::chrono::seconds(60),
                  const std::shared_ptr<grpc::ChannelCredentials>& credentials = grpc::InsecureChannelCredentials(),
                  std::map<std::string, std::string> headers = {});
  ~Client();

  // The tags of each of up to 32 encoded images (JPEG, PNG, ...), highest score first, in one request.
  // `timeout` covers all attempts. `tags` is written only if the status is OK.
  grpc::Status TagImages(const std::vector<std::string>& images, const Options& options,
                         std::vector<std::vector<Tag>>* tags);

 private:
  struct Stub;
  std::unique_ptr<Stub> stub_;
  std::chrono::duration<double> timeout_;
  std::map<std::string, std::string> headers_;
};

}  // namespace ram
