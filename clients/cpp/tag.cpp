// Prints the tags of images: file, score, English name, Chinese name, with tabs between them.
#include <algorithm>
#include <cctype>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>
#include <stdexcept>

#include "ram.h"

namespace {

const char* const kStatus[] = {
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
    "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
    "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"};

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string bytes((std::istreambuf_iterator<char>(file)), {});
  if (!file) throw std::runtime_error(path + ": cannot be read");
  return bytes;
}

double Number(const std::string& option, const std::string& text) {
  char* end = nullptr;
  const double number = std::strtod(text.c_str(), &end);
  if (text.empty() || *end != '\0') throw std::runtime_error(option + ": '" + text + "' is not a number");
  return number;
}

std::pair<std::string, std::string> Header(std::string text) {
  const auto colon = text.find(':'), start = text.find_first_not_of(' ', colon + 1);
  if (colon == 0 || colon == std::string::npos) throw std::runtime_error("--header: '" + text + "' is not NAME:VALUE");
  std::transform(text.begin(), text.begin() + colon, text.begin(), ::tolower);
  return {text.substr(0, colon), start == std::string::npos ? "" : text.substr(start)};
}

struct Arguments {
  std::string server = "localhost:8001";
  std::shared_ptr<grpc::ChannelCredentials> credentials = grpc::InsecureChannelCredentials();
  std::map<std::string, std::string> headers;
  double timeout = 60;
  size_t batch = 32;
  ram::Options options;
  std::vector<std::string> files;
};

Arguments ReadCommandLine(int argc, char** argv) {
  Arguments given;
  for (int i = 1; i < argc; ++i) {
    std::string option = argv[i], value;
    if (option.rfind("--", 0) != 0) { given.files.push_back(option); continue; }
    if (option == "--tls") { given.credentials = grpc::SslCredentials({}); continue; }  // trusts gRPC's own list
    const auto equals = option.find('=');
    if (equals == std::string::npos && ++i == argc) throw std::runtime_error(option + ": its value is missing");
    value = equals == std::string::npos ? argv[i] : option.substr(equals + 1);
    option = option.substr(0, equals);
    if (option == "--server") given.server = value;
    else if (option == "--tls-ca") given.credentials = grpc::SslCredentials({ReadFile(value), "", ""});
    else if (option == "--header") given.headers.insert(Header(value));
    else if (option == "--timeout") given.timeout = Number(option, value);
    else if (option == "--batch") given.batch = std::max(1.0, Number(option, value));
    else if (option == "--threshold") given.options.threshold = Number(option, value);
    else if (option == "--top-k") given.options.top_k = Number(option, value);
    else if (option == "--exclude") given.options.exclude.push_back(value);
    else if (option == "--label") given.options.labels.push_back(value);
    else throw std::runtime_error(option + ": unknown option");
  }
  if (given.files.empty()) throw std::runtime_error("no image is given");
  return given;
}

// Tags some of the files in one request, and prints what comes back.
void TagFiles(ram::Client& client, const ram::Options& options, const std::vector<std::string>& files) {
  std::vector<std::string> images;
  std::transform(files.begin(), files.end(), std::back_inserter(images), ReadFile);
  std::vector<std::vector<ram::Tag>> answers;
  const grpc::Status status = client.TagImages(images, options, &answers);
  if (!status.ok())
    throw std::runtime_error(std::string(kStatus[status.error_code()]) + ": " + status.error_message());
  for (size_t row = 0; row < files.size(); ++row)
    for (const auto& tag : answers[row])
      std::printf("%s\t%.6f\t%s\t%s\n", files[row].c_str(), tag.score, tag.name.c_str(), tag.name_zh.c_str());
}

}  // namespace

int main(int argc, char** argv) try {
  setenv("GRPC_VERBOSITY", "NONE", 0);  // a failed connection is an error of the call: it need not be logged too
  const Arguments given = ReadCommandLine(argc, argv);
  ram::Client client(given.server, std::chrono::duration<double>(given.timeout), given.credentials,
                     given.headers);
  int exit_status = 0;
  for (auto next = given.files.begin(); next != given.files.end();) {
    const auto first = next;
    next += std::min<std::ptrdiff_t>(given.batch, given.files.end() - first);
    try {
      TagFiles(client, given.options, {first, next});
    } catch (const std::exception& error) {  // of the server, or of a file
      std::cerr << "tag: " << error.what() << '\n';
      exit_status = 1;
    }
  }
  return exit_status;
} catch (const std::exception& error) {
  std::cerr << "tag: " << error.what() << '\n';
  return 2;
}
