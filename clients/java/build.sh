#!/bin/sh
# Compiles the client with the jars of Debian's packages, into out/; out/tag starts the command.
set -eu
cd "$(dirname "$0")"
classpath=
for jar in grpc-api grpc-context grpc-core grpc-netty grpc-protobuf grpc-protobuf-lite grpc-stub protobuf guava \
    perfmark-api geronimo-annotation-1.3-spec netty-buffer netty-codec netty-codec-http netty-codec-http2 netty-common \
    netty-handler netty-handler-proxy netty-resolver netty-tcnative netty-transport; do
  [ -e "/usr/share/java/$jar.jar" ] || { echo "build.sh: there is no /usr/share/java/$jar.jar: see README.md" >&2; exit 1; }
  classpath=$classpath:/usr/share/java/$jar.jar
done
rm -rf out
mkdir -p out/generated out/classes out/lib
# Debian's Netty can do TLS through this library only, and looks for it by a name that Debian's package has not.
cp /usr/lib/*/jni/libnetty-tcnative.so out/lib/libnetty_tcnative.so
protoc --proto_path=../proto --java_out=out/generated --grpc-java_out=out/generated \
  --plugin=protoc-gen-grpc-java="$(command -v grpc_java_plugin)" inference.proto
javac -Xlint:all,-processing,-classfile,-path -d out/classes -classpath "$classpath" \
  out/generated/inference/*.java ram/*.java
cat > out/tag <<EOF
#!/bin/sh
here=\$(dirname "\$(readlink -f "\$0")")
export LC_ALL=C.UTF-8 # else Java reads the arguments as the locale has it
# The options -XX spare a short run a third of its time.
exec java -Djava.library.path="\$here/lib" -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -classpath "\$here/classes$classpath" ram.TagCommand "\$@"
EOF
chmod +x out/tag
