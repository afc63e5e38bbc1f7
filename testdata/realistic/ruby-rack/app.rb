# Answers one request and prints the answer.
require "json"
require "rack"
require "rack/mock"

config = JSON.parse(File.read("config.json"))
app = ->(env) { [200, {}, ["#{config["greeting"]} #{env["PATH_INFO"]}\n"]] }
print Rack::MockRequest.new(app).get(ARGV[0]).body
