package ram;

import io.grpc.ChannelCredentials;
import io.grpc.InsecureChannelCredentials;
import io.grpc.StatusRuntimeException;
import io.grpc.TlsChannelCredentials;
import java.io.*;
import java.nio.charset.StandardCharsets;
import java.nio.file.*;
import java.util.*;

/** Prints the tags of images: file, score, English name, Chinese name, with tabs between them. */
public final class TagCommand {
  private String server = "localhost:8001";
  private ChannelCredentials credentials = InsecureChannelCredentials.create();
  private final Map<String, String> headers = new HashMap<>();
  private double timeout = 60;
  private int batch = 32;
  private Float threshold;
  private Integer topK;
  private final List<String> exclude = new ArrayList<>();
  private final List<String> labels = new ArrayList<>();
  private final List<String> files = new ArrayList<>();

  private TagCommand(String[] arguments) throws IOException {
    for (int i = 0; i < arguments.length; i++) {
      if (!arguments[i].startsWith("--")) {
        files.add(arguments[i]);
        continue;
      }
      if (arguments[i].equals("--tls")) {
        credentials = TlsChannelCredentials.create(); // trusts Java's own list
        continue;
      }
      String[] parts = arguments[i].split("=", 2);
      if (parts.length == 1 && ++i == arguments.length) fail(parts[0] + ": its value is missing");
      set(parts[0], parts.length == 2 ? parts[1] : arguments[i]);
    }
    if (files.isEmpty()) fail("no image is given");
  }

  private void set(String option, String value) throws IOException {
    try {
      switch (option) {
        case "--server" -> server = value;
        case "--tls-ca" -> credentials = TlsChannelCredentials.newBuilder().trustManager(new File(value)).build();
        case "--header" -> {
          if (value.indexOf(':') < 1) fail("--header: '" + value + "' is not NAME:VALUE");
          headers.put(value.split(":", 2)[0], value.split(":", 2)[1].strip());
        }
        case "--timeout" -> timeout = Double.parseDouble(value);
        case "--batch" -> batch = Math.max(1, Integer.parseInt(value));
        case "--threshold" -> threshold = Float.valueOf(value);
        case "--top-k" -> topK = Integer.valueOf(value);
        case "--exclude" -> exclude.add(value);
        case "--label" -> labels.add(value);
        default -> fail(option + ": unknown option");
      }
    } catch (NumberFormatException error) {
      fail(option + ": '" + value + "' is not a number");
    }
  }

  private static void fail(String message) {
    throw new IllegalArgumentException(message);
  }

  private int run(PrintStream output) {
    int exitStatus = 0;
    var options = new RamClient.Options(threshold, topK, exclude, labels);
    try (var client = new RamClient(server, timeout, credentials, headers)) {
      for (int start = 0; start < files.size(); start += batch) {
        List<String> some = files.subList(start, Math.min(start + batch, files.size()));
        try {
          var images = new ArrayList<byte[]>();
          for (String file : some) images.add(Files.readAllBytes(Path.of(file)));
          var answers = client.tag(images, options);
          for (int row = 0; row < some.size(); row++) {
            for (RamClient.Tag tag : answers.get(row)) {
              output.printf(Locale.ROOT, "%s\t%.6f\t%s\t%s%n", some.get(row), tag.score(), tag.name(), tag.nameZh());
            }
          }
        } catch (StatusRuntimeException | IOException error) {
          String reason = error instanceof NoSuchFileException ? ": no such file" : ""; // else it is in the message
          System.err.println("tag: " + error.getMessage().replace('\n', ' ') + reason);
          exitStatus = 1;
        }
      }
    }
    return exitStatus;
  }

  public static void main(String[] arguments) {
    var output = new PrintStream(System.out, true, StandardCharsets.UTF_8);
    try {
      System.exit(new TagCommand(arguments).run(output));
    } catch (IllegalArgumentException | IOException error) {
      System.err.println("tag: " + error.getMessage());
      System.exit(2);
    }
  }
}
